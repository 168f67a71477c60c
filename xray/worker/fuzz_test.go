package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/traffic"
)

// scriptConn is a daemon that says what it was given, listens to every answer,
// and ends.
type scriptConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer // written by the worker's one sender
}

func (c *scriptConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *scriptConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func frames(bodies ...string) (all []byte) {
	for _, body := range bodies {
		all = binary.BigEndian.AppendUint32(all, uint32(len(body)))
		all = append(all, body...)
	}
	return all
}

// Whatever comes from the daemon's side makes the worker end, and not panic or
// hang, and each request that can be read is answered once. With boot, it comes
// after a good dry-run boot: a dry run starts nothing and listens on nothing,
// so that it can be had again and again in one process.
func FuzzWorkerRequest(f *testing.F) {
	file, err := counters.Create(filepath.Join(f.TempDir(), "counters"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = file.Close() })
	if err := file.Grow(4); err != nil {
		f.Fatal(err)
	}
	for _, seed := range requestSeeds {
		f.Add(true, frames(seed...))
		f.Add(false, frames(seed...))
	}
	f.Add(true, []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(false, frames(`{"id":1,"boot":{"counters":"nowhere"}}`))
	f.Add(false, frames(`{"id":1,"boot":{"counters":"/dev/null","dryRun":true}}`, `{"id":2}`))
	f.Fuzz(func(t *testing.T, boot bool, data []byte) {
		if !boot {
			converse(t, data, func(conn *ipc.FrameConn) error { return run(t.Context(), conn, nil) })
			return
		}
		want := requestIDs(data)
		have := converse(t, data, func(conn *ipc.FrameConn) error { return booted(conn, file) })
		if slices.Sort(have); want != nil && !slices.Equal(have, want) {
			t.Errorf("requests %d were answered as %d", want, have)
		}
	})
}

// booted goes on as Run does after a dry-run boot. Run's own boot maps the
// counters for the life of a process, which is too often here.
func booted(conn *ipc.FrameConn, slots *counters.File) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &server{conn: conn, queue: newMessageQueue(), dryRun: true}
	w.handed = newHandedFiles(conn, w.queue.answer)
	in, err := newInstance(ctx, state.Base{}, traffic.NewRegistry(w.queue.push))
	if err != nil {
		return err
	}
	defer in.core.Close()
	w.exec = &executor{instance: in, slots: slots, dryRun: true, shells: map[string]state.Inbound{}}
	var sending sync.WaitGroup
	sending.Go(w.queue.send)
	defer sending.Wait()
	defer w.queue.close()
	w.queue.attach(conn)
	return w.serve(ctx)
}

// A ping is answered while a large frame is being read.
func TestPingBesideALargeFrame(t *testing.T) {
	file, err := counters.Create(filepath.Join(t.TempDir(), "counters"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	daemon, worker := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- booted(ipc.NewFrameConn(worker), file) }()
	conn := ipc.NewFrameConn(daemon)
	large := state.Operation{Kind: state.OpAddUsers, Tag: "none", Users: make([]state.Client, 100_000)}
	for i := range large.Users {
		large.Users[i] = state.Client{Email: fmt.Sprintf("client-%d", i), Account: []byte(`{"id":"` + fmt.Sprintf("client-%d", i) + `"}`)}
	}
	if err := conn.Write(ipc.Request{ID: 1, Operation: &large}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Write(ipc.Request{ID: 2, Ping: true}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{2, 1} {
		var m ipc.Message
		if err := conn.Read(&m); err != nil || m.ID != want {
			t.Fatalf("answered %d (%v), want %d", m.ID, err, want)
		}
	}
	_ = daemon.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

var requestSeeds = [][]string{
	{`{"id":1,"ping":true}`, `{"id":2}`, `{"id":3,"ping":true}`},
	{
		`{"id":1,"operation":{"kind":"put_outbound","tag":"direct","outbound":{"tag":"direct","config":{"protocol":"freedom","settings":{},"tag":"direct"},"slot":0}}}`,
		`{"id":2,"operation":{"kind":"default_outbound","tag":"direct"}}`,
		`{"id":3,"operation":{"kind":"set_routing","routing":{"rules":[{"inboundTag":["in-1"],"outboundTag":"direct"}]}}}`,
		`{"id":4,"operation":{"kind":"remove_outbound","tag":"direct"}}`,
	},
	{
		`{"id":1,"operation":{"kind":"add_inbound","tag":"in-1","inbound":{"tag":"in-1","protocol":"vless","config":{"tag":"in-1","protocol":"vless","listen":"@fuzz","settings":{"decryption":"none","clients":[]}}}}}`,
		`{"id":2,"operation":{"kind":"add_users","tag":"in-1","users":[{"email":"a","account":{"id":"11111111-1111-4111-8111-111111111111","email":"a"},"limits":{"limitIps":1},"group":"g","slot":1}]}}`,
		`{"id":3,"operation":{"kind":"update_users","tag":"in-1","users":[{"email":"a","slot":2}]}}`,
		`{"id":4,"operation":{"kind":"remove_users","tag":"in-1","emails":["a"]}}`,
		`{"id":5,"operation":{"kind":"remove_inbound","tag":"in-1"}}`,
	},
	{`{"id":1,"operation":{"kind":"replace_inbound","tag":"in-1","inbound":{"tag":"in-1","protocol":"trojan","config":{"tag":"in-1","protocol":"trojan","listen":"@fuzz","settings":{"clients":[]}}},"users":[{"email":"a","account":{"password":"p","email":"a"},"slot":1}]}}`},
	{`{"id":1,"operation":{"kind":"add_inbound"}}`, `{"id":2,"operation":{"kind":"put_outbound"}}`, `{"id":3,"operation":{}}`, `{"id":4,"operation":{"kind":"set_routing"}}`},
	{`{"id":1,"operation":{"kind":"add_users","tag":"in-1","users":[{"email":"a","slot":4294967295}]}}`},
	{`{"id":1,"drain":{"timeout":0}}`},
	{`{"id":1,"drain":{"timeout":-1}}`, `{"id":2,"drain":{"timeout":9223372036854775807}}`},
	{`{"id":1,"boot":{"counters":""}}`},
	{`{"id":1,"adopt":{"epoch":""}}`, `{"id":2,"clients":{"tag":"in-1","after":"a"}}`, `{"id":3,"end":true}`, `{"id":4}`},
	{`null`},
	{`[]`},
	{``},
}

// requestIDs are those of the requests before the first that can't be read, in
// order, and before one that ends the worker; nil where a drain lets the worker end before it has read them all, or a large
// frame is no operation.
func requestIDs(data []byte) []uint64 {
	conn := ipc.NewFrameConn(&scriptConn{in: bytes.NewReader(data)})
	ids := []uint64{}
	for {
		var r ipc.Request
		body, err := conn.ReadFrame()
		if err == nil {
			err = ipc.DecodeFrame(body, &r)
		}
		if err != nil {
			slices.Sort(ids)
			return ids
		}
		if r.End {
			return ids
		}
		if r.Drain != nil || r.Operation == nil && len(body) >= largeFrame {
			return nil
		}
		ids = append(ids, r.ID)
	}
}

// converse lets a worker hear data to its end, and returns whom it answered.
func converse(t *testing.T, data []byte, run func(*ipc.FrameConn) error) (answered []uint64) {
	t.Helper()
	conn := &scriptConn{in: bytes.NewReader(data)}
	ended := make(chan struct{})
	go func() {
		_ = run(ipc.NewFrameConn(conn)) // what it says of nonsense is its own choice
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(workerEndsWithin):
		t.Fatalf("the worker does not end within %s of its daemon", workerEndsWithin)
	}
	answers := ipc.NewFrameConn(&scriptConn{in: &conn.out})
	for {
		var m ipc.Message
		if err := answers.Read(&m); err != nil {
			return answered
		}
		if m.Presence == nil && m.Closed == nil {
			answered = append(answered, m.ID)
		}
	}
}

// workerEndsWithin is how long a worker may take to end once its daemon is gone.
const workerEndsWithin = 20 * time.Second
