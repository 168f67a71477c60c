package hysteria

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apernet/quic-go"
	"github.com/xtls/xray-core/common/buf"
	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
)

// line is a session whose messages are read again.
type line struct {
	messages [][]byte
	limit    int
}

func (l *line) Receive() ([]byte, error) {
	if len(l.messages) == 0 {
		return nil, io.EOF
	}
	first := l.messages[0]
	l.messages = l.messages[1:]
	return first, nil
}

func (l *line) Send(message []byte) error {
	if len(message) > l.limit {
		return &quic.DatagramTooLargeError{MaxDatagramPayloadSize: int64(l.limit)}
	}
	l.messages = append(l.messages, bytes.Clone(message))
	return nil
}

func contents(size int, seed byte) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed, byte(size), byte(size >> 8)}).Read(data)
	return data
}

// Datagrams of every size come through whole, over a wide path and over one on which less
// fits than QUIC says at first.
func TestEverySizePasses(t *testing.T) {
	for _, limit := range []int{maxMessage, 1100, 80} {
		w := &writer{to: &line{limit: limit}, from: "192.0.2.1:53"}
		for size := 1; size <= 9000; size += 1 + size/40 {
			at := w.to.(*line)
			at.messages = nil
			sent := contents(size, 1)
			if err := w.WriteMultiBuffer(buf.MultiBuffer{buf.FromBytes(bytes.Clone(sent))}); err != nil {
				t.Fatalf("%d bytes at %d: %v", size, limit, err)
			}
			got, err := (&reader{from: at}).ReadMultiBuffer()
			if err != nil || len(got) != 1 || !bytes.Equal(got[0].Bytes(), sent) || got[0].UDP.NetAddr() != w.from {
				t.Fatalf("%d bytes at %d: %v, %v", size, limit, got, err)
			}
		}
	}
}

// Fragments of several datagrams come in any order and some of them never: every datagram
// that is complete comes through with its own bytes, and no other one.
func TestMixedFragments(t *testing.T) {
	const rounds, together = 300, maxPending / 2
	random := rand.New(rand.NewPCG(3, 4))
	out := &line{limit: maxMessage}
	w := &writer{to: out, from: "192.0.2.1:53"}
	var got reader
	whole := 0
	for round := range rounds {
		out.messages = nil
		var left [][]byte
		want := map[string]bool{}
		for i := range together {
			sent, begin := contents(1+random.IntN(9000), byte(i)), len(out.messages)
			if err := w.WriteMultiBuffer(buf.MultiBuffer{buf.FromBytes(bytes.Clone(sent))}); err != nil {
				t.Fatal(err)
			}
			fragments := out.messages[begin:]
			if random.IntN(4) == 0 {
				fragments = fragments[:len(fragments)-1]
			} else {
				want[string(sent)] = true
			}
			left = append(left, fragments...)
		}
		random.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		got.from = &line{messages: left}
		for {
			mb, err := got.ReadMultiBuffer()
			if err != nil {
				break
			}
			if text := string(mb[0].Bytes()); want[text] {
				delete(want, text)
				whole++
				continue
			}
			t.Fatalf("round %d: a datagram of %d bytes that nobody sent", round, mb.Len())
		}
		if len(want) > 0 {
			t.Fatalf("round %d: %d whole datagrams are lost", round, len(want))
		}
	}
	if whole == 0 {
		t.Error("no datagram came through")
	}
}

// The incomplete datagrams of a client take a bounded memory, for a bounded time.
func TestFragmentsAreBounded(t *testing.T) {
	var a assembler
	now := time.Now()
	for id := range uint16(1000) {
		a.add(&xhysteria.UDPMessage{PacketID: id + 1, FragCount: 255, Addr: "192.0.2.1:53", Data: make([]byte, 1100)}, now)
		for part := range uint8(100) {
			a.add(&xhysteria.UDPMessage{PacketID: id + 1, FragID: part + 1, FragCount: 255, Addr: "192.0.2.1:53", Data: make([]byte, 1100)}, now)
		}
		if len(a.pending) > maxPending || a.size > maxPendingBytes {
			t.Fatalf("%d datagrams with %d bytes wait", len(a.pending), a.size)
		}
	}
	a.add(&xhysteria.UDPMessage{PacketID: 5000, FragCount: 2, Addr: "192.0.2.1:53", Data: []byte{1}}, now.Add(2*pendingAge))
	if len(a.pending) != 1 || a.size != 1 {
		t.Errorf("after their time %d datagrams with %d bytes wait", len(a.pending), a.size)
	}
}

// FuzzDatagrams reads messages as a hostile client may send them: three bytes before each one
// say how long it is.
func FuzzDatagrams(f *testing.F) {
	f.Add([]byte("\x00\x00\x12\x00\x00\x00\x01\x00\x02\x01\x02\x0d192.0.2.1:53x"))
	f.Add([]byte("\x00\x00\x05\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := &line{}
		for len(raw) >= 3 {
			size := min(int(raw[2])|int(raw[1])<<8, len(raw)-3, maxMessage)
			l.messages, raw = append(l.messages, raw[3:3+size]), raw[3+size:]
		}
		r := &reader{from: l}
		for {
			mb, err := r.ReadMultiBuffer()
			if err != nil {
				break
			}
			if mb.Len() > maxDatagram || mb[0].UDP == nil || !mb[0].UDP.IsValid() {
				t.Fatalf("a datagram of %d bytes to %v", mb.Len(), mb[0].UDP)
			}
			if len(r.assembler.pending) > maxPending || r.assembler.size > maxPendingBytes {
				t.Fatalf("%d datagrams with %d bytes wait", len(r.assembler.pending), r.assembler.size)
			}
		}
	})
}
