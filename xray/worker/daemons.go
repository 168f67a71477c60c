package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"nodeagent/xray/ipc"
)

// Listener gives the connections of daemons; ipc.Listener is one.
type Listener interface{ Accept() (net.Conn, error) }

// accept returns a channel with the connections of daemons that know the secret. A connection of
// somebody else is closed, and log says so.
func accept(ctx context.Context, listener Listener, secret []byte, log io.Writer) <-chan *ipc.FrameConn {
	daemons := make(chan *ipc.FrameConn)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				_, _ = fmt.Fprintf(log, "no daemon can connect any more: %v\n", err)
				return
			}
			go func() { // somebody who says nothing holds up nobody
				frames := ipc.NewFrameConn(conn)
				if err := ipc.Answer(frames, secret); err != nil {
					_, _ = fmt.Fprintf(log, "refuse a connection: %v\n", errors.Join(err, frames.Close()))
					return
				}
				select {
				case daemons <- frames:
				case <-ctx.Done():
				}
			}()
		}
	}()
	return daemons
}

// attach makes conn the connection to the daemon. The one before ends.
func (w *server) attach(conn *ipc.FrameConn) {
	if w.conn != nil {
		w.queue.detach(w.conn)
		_ = w.conn.Close()
	}
	w.conn = conn
	w.handed.connect(conn)
	w.queue.attach(conn)
}

// running describes what the worker runs, for the daemon that adopts it. The goroutine of operate
// calls it between two operations. draining is that of the server.
func (w *server) running(to *ipc.FrameConn, id uint64, adopt *ipc.Adopt, draining bool) {
	if have := w.exec.slots.Epoch(); have != adopt.Epoch {
		w.queue.answer(to, ipc.Message{ID: id, Error: operationError(fmt.Errorf("this worker counts into the counters %s, the daemon reads %s", have, adopt.Epoch))})
		return
	}
	r := &ipc.Running{State: w.exec.runs, Draining: draining, StartedAt: w.booted, CrashOutput: w.crash, Settings: w.settings, Dropped: w.queue.takeDropped()}
	w.exec.clients.Snapshot(r, func() { w.queue.answer(to, ipc.Message{ID: id, Running: r}) })
	if w.handed.knows(to) && w.exec.watch != nil {
		w.exec.watch.Again()
	}
}
