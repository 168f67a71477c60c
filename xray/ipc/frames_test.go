package ipc

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// textConn is a connection from which in is read, and whose writes go to out.
type textConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *textConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *textConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func framed(bodies ...string) []byte {
	var all []byte
	for _, body := range bodies {
		all = binary.BigEndian.AppendUint32(all, uint32(len(body)))
		all = append(all, body...)
	}
	return all
}

func connOf(data []byte) *FrameConn { return NewFrameConn(&textConn{in: bytes.NewReader(data)}) }

func TestReadRefusesFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		is   error
		says string
	}{
		{"nothing", nil, io.EOF, ""},
		{"half a length", []byte{0, 0}, io.ErrUnexpectedEOF, ""},
		{"a length alone", []byte{0, 0, 0, 9}, io.ErrUnexpectedEOF, ""},
		{"half a body", framed(`{"id":1}`)[:9], io.ErrUnexpectedEOF, ""},
		{"more than the most", []byte{4, 0, 0, 1}, nil, "the most is"},
		{"the greatest length", []byte{255, 255, 255, 255}, nil, "the most is"},
		{"an empty body", framed(""), nil, "decode frame"},
		{"no JSON", framed("\x00\x01"), nil, "decode frame"},
		{"two values", framed(`{}{}`), nil, "decode frame"},
		{"another type", framed(`{"id":"one"}`), nil, "decode frame"},
		{"an id too great", framed(`{"id":18446744073709551616}`), nil, "decode frame"},
		{"a depth without end", framed(strings.Repeat(`[`, 20_000)), nil, "decode frame"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r Request
			err := connOf(c.data).Read(&r)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.is, c.says)
			}
		})
	}
}

func TestWriteRefusesTooMuch(t *testing.T) {
	conn := &textConn{}
	err := NewFrameConn(conn).Write(Message{Error: &fault.Fault{Message: strings.Repeat("x", maxFrame)}})
	if err == nil || !strings.Contains(err.Error(), "the most is") || conn.out.Len() != 0 {
		t.Errorf("got %v and %d bytes", err, conn.out.Len())
	}
}

// Every member of a request and of a message survives encoding and decoding.
func TestFramesRoundTrip(t *testing.T) {
	at := time.Date(2026, 3, 27, 1, 2, 3, 456, time.UTC)
	inbound := state.Inbound{Tag: "in-1", Protocol: "vless", Config: json.RawMessage(`{"port":1}`)}
	client := state.Client{Email: "e", Account: json.RawMessage(`{"id":"x"}`), Limits: state.Limits{IPs: 1, Connections: 2, RateUpBitsPerSecond: 3, RateDownBitsPerSecond: 4}, Group: "g", Slot: 7}
	for _, r := range []Request{
		{},
		{ID: 1, Boot: &Boot{Counters: "/run/counters", Base: state.Base{Observatory: json.RawMessage(`{"servers":[]}`)}, Held: []state.Binding{{Tag: "in-1", Network: "tcp", Address: netip.MustParseAddr("::1"), Port: 443}, {Tag: "in-2", Network: "unix", Path: "/run/x.sock"}}, DryRun: true}},
		{ID: 2, Operation: &state.Operation{Kind: state.OpReplaceInbound, Tag: "in-1", Inbound: &inbound, Users: []state.Client{client}, Emails: []string{"a", "b"}}},
		{ID: 3, Operation: &state.Operation{Kind: state.OpPutOutbound, Outbound: &state.Outbound{Tag: "o", Config: json.RawMessage(`{}`), Slot: 4}, Routing: json.RawMessage(`null`)}},
		{ID: 1<<64 - 1, Ping: true, Drain: &Drain{Timeout: -1}},
	} {
		roundTrip(t, r)
	}
	for _, m := range []Message{
		{},
		{ID: 1, Error: &fault.Fault{Code: fault.PortInUse, Tag: "in-1", Port: 443, Message: "a <b> & \u2028 \x00", Retry: true, Stack: "stack"}, Closed: []uint32{0, 1<<32 - 1}},
		{Info: &WorkerInfo{XrayVersion: "1", Goroutines: 2, Streams: 3, Refused: Refused{Connections: 1}, HeldBack: 0.5}, Presence: []Presence{{Slot: 1, IP: netip.MustParseAddr("fe80::1%eth0"), Online: true, At: at}}},
	} {
		roundTrip(t, m)
	}
}

// roundTrip writes v, reads it back and compares the two as text, because raw members lose
// their white space when they are encoded.
func roundTrip[T any](t *testing.T, v T) {
	t.Helper()
	conn := &textConn{}
	if err := NewFrameConn(conn).Write(v); err != nil {
		t.Fatalf("write %+v: %v", v, err)
	}
	var back T
	reading := connOf(conn.out.Bytes())
	if err := reading.Read(&back); err != nil {
		t.Fatalf("read %+v back: %v", v, err)
	}
	want, err1 := json.Marshal(v)
	have, err2 := json.Marshal(back)
	if err := errors.Join(err1, err2); err != nil || !bytes.Equal(want, have) {
		t.Errorf("%s came back as %s (%v)", want, have, err)
	}
	if err := reading.Read(&back); !errors.Is(err, io.EOF) {
		t.Errorf("after the only frame comes %v", err)
	}
}

// No bytes make the reader panic or allocate for a length whose bytes do not come. What was
// decoded can be encoded again.
func FuzzFrame(f *testing.F) {
	for _, seed := range [][]byte{
		framed(`{"id":1,"boot":{"counters":"/run/counters","base":{"observatory":{}},"held":[{"Tag":"a","Network":"tcp","Address":"127.0.0.1","Port":443}],"dryRun":true}}`, `{"id":2,"ping":true}`),
		framed(`{"id":3,"operation":{"kind":"replace_inbound","tag":"in-1","inbound":{"tag":"in-1","protocol":"vless","config":{ "port": 1 }},"users":[{"email":"e","account":{},"limits":{"limitIps":1},"group":"g","slot":7}],"emails":["a"],"routing":null}}`),
		framed(`{"id":4,"operation":{"kind":"put_outbound","outbound":{"tag":"o","config":{"a":"<&>"},"slot":1}}}`, `{"id":5,"drain":{"timeout":1}}`),
		framed(`{"id":1,"error":{"code":"port_in_use","tag":"a","port":443,"message":"m"},"closed":[1,2]}`, `{"id":1,"info":{"xrayVersion":"1","goroutines":1,"streams":2}}`),
		framed(`{"event":{"slot":1,"ip":"fe80::1%eth0","online":true,"at":"2026-01-02T03:04:05.6+23:59"}}`, `null`, ``),
		{0x04, 0, 0, 0, '{'},
		{0xff, 0xff, 0xff, 0xff},
		{0, 0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		readAll[Request](t, data)
		readAll[Message](t, data)
	})
}

func readAll[T any](t *testing.T, data []byte) {
	conn := connOf(data)
	for rest := len(data); ; {
		announced := 0
		if head, err := conn.in.Peek(4); err == nil {
			announced = int(binary.BigEndian.Uint32(head))
		}
		var v T
		err := boundAllocation(t, announced, len(data), func() error { return conn.Read(&v) })
		if err != nil {
			return
		}
		if rest -= 4 + announced; rest < 0 {
			t.Fatalf("read a frame of %d bytes out of %d", announced, len(data))
		}
		roundTrip(t, v)
	}
}

// boundAllocation runs f, and fails the test where f allocates about as much as a large
// length that the data does not have. Allocations for a small length cannot be told from
// other allocations.
func boundAllocation(t *testing.T, announced, have int, f func() error) error {
	const large, allowed = 16 << 20, 8 << 20
	if announced < large || have > believed {
		return f()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := f()
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > allowed {
		t.Errorf("%d bytes were allocated for %d that came, of %d announced", spent, have, announced)
	}
	return err
}
