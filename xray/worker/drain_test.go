package worker

import (
	"bytes"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/features/inbound"

	"nodeagent/internal/occupancy"
	"nodeagent/xray/ipc"
	"nodeagent/xray/worker/relay"
	"nodeagent/xray/worker/traffic"
)

// A worker drains for as long as it may while a stream is open, and not longer.
func TestADrainTakesItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients := traffic.NewRegistry(func(ipc.Message) {})
		clients.Streams.Add(1)
		w := &server{queue: newMessageQueue(), exec: &executor{instance: &instance{clients: clients, inbounds: newInboundManager()}}}
		began := time.Now()
		<-w.drain(t.Context(), time.Hour, true, func() {})
		if took := time.Since(began); took != time.Hour {
			t.Errorf("it drained for %s, want an hour", took)
		}
	})
}

// listener is an inbound that only notes that it was closed.
type listener struct {
	inbound.Handler
	tag    string
	closed bool
}

func (l *listener) Tag() string  { return l.tag }
func (l *listener) Close() error { l.closed = true; return nil }

// A worker that drains keeps its listeners of QUIC only where the worker that has taken over passes
// datagrams on, or where none has taken over.
func TestADrainKeepsListenersOfQUIC(t *testing.T) {
	for _, c := range []struct {
		name                    string
		serves, replaced, keeps bool
	}{
		{"the next worker passes datagrams on", true, true, true},
		{"the next worker passes none on", false, true, false},
		{"the daemon is gone", false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "open")
			var tables [2]*occupancy.Table
			for i := range tables {
				table, err := occupancy.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer table.Close()
				tables[i] = table
			}
			if c.serves {
				tables[1].Serve()
			}
			own, err := relay.New(tables[0], bytes.Repeat([]byte{9}, 32))
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			manager, tcp, quic := newInboundManager(), &listener{tag: "tcp"}, &listener{tag: "quic"}
			for _, l := range []*listener{tcp, quic} {
				manager.owns(l, nil, nil, map[bool]lasting{true: lastsByID}[l == quic])
				manager.hold(l)
			}
			clients := traffic.NewRegistry(func(ipc.Message) {})
			w := &server{queue: newMessageQueue(), relay: own, exec: &executor{instance: &instance{clients: clients, inbounds: manager}}}
			<-w.drain(t.Context(), 0, c.replaced, func() {})
			if !tcp.closed || quic.closed == c.keeps {
				t.Errorf("the listener of TCP is closed: %t, the one of QUIC: %t", tcp.closed, quic.closed)
			}
		})
	}
}
