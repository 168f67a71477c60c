package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/heap"
	"nodeagent/xray/worker/transport/xhttp"
)

// frame is a request that was received; a large one is not decoded yet.
type frame struct {
	from    *ipc.FrameConn
	request ipc.Request
	large   []byte
	// draining is that of the server, when the request came.
	draining bool
}

// gone says that a connection has ended.
type gone struct {
	conn *ipc.FrameConn
	err  error
}

// largeFrame is the size in bytes from which operate decodes a frame and not receive. While
// receive decodes, pings wait.
const largeFrame = 64 << 10

// serve answers pings at once, also while an operation runs.
func (w *server) serve(ctx context.Context) error {
	operations, broken := make(chan frame, 64), make(chan error, 1)
	var working sync.WaitGroup
	working.Go(w.operator(operations, broken))
	defer working.Wait()
	defer close(operations)
	defer w.handed.disconnect()
	if w.exec.watch != nil {
		go w.exec.watch.Run(ctx) // only now, because its functions need exec.later
	}
	frames, left := make(chan frame), make(chan gone)
	receive := func(conn *ipc.FrameConn) {
		go func() { sendOr(ctx, left, gone{conn, w.receive(ctx, conn, frames)}) }()
	}
	receive(w.conn)
	var drained <-chan struct{}
	var orphaned <-chan time.Time // while there is no daemon
	for {
		select {
		case f := <-frames:
			f.draining = w.draining
			switch {
			case f.from != w.conn: // of a daemon that is gone: the next one knows nothing of it
			case f.request.End:
				return nil
			case f.request.Drain != nil:
				drained = w.drain(ctx, f.request.Drain.Timeout, true, func() { w.queue.answer(f.from, ipc.Message{ID: f.request.ID}) })
			default:
				w.pass(f, operations)
			}
		case conn := <-w.daemons:
			if w.dryRun { // it is for its own daemon alone
				_ = conn.Close()
				continue
			}
			orphaned = nil
			w.attach(conn)
			receive(conn)
		case g := <-left:
			if g.conn != w.conn {
				continue
			}
			if w.dryRun || w.orphan.Timeout == 0 {
				return nil
			}
			w.leaveDaemon()
			orphaned = time.After(w.orphan.Timeout)
		case <-orphaned:
			if !w.draining {
				drained = w.drain(ctx, w.orphan.Drain, false, func() {})
			}
		case err := <-broken:
			return fmt.Errorf("read request: %w", err)
		case <-drained:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// pass answers a ping, and gives operate every other request.
func (w *server) pass(f frame, operations chan<- frame) {
	if f.request.Ping {
		w.queue.answer(f.from, ipc.Message{ID: f.request.ID, Info: w.info()})
		return
	}
	if f.request.Adopt != nil {
		w.orphan = f.request.Adopt.Orphan
	}
	operations <- f
}

// leaveDaemon closes what belonged to the daemon whose connection has ended.
func (w *server) leaveDaemon() {
	w.queue.detach(w.conn)
	w.handed.disconnect()
	_ = w.conn.Close()
	w.conn = nil
}

// sendOr sends a value, unless ctx ends first.
func sendOr[T any](ctx context.Context, to chan<- T, v T) {
	select {
	case to <- v:
	case <-ctx.Done():
	}
}

// receive passes on the daemon's frames until conn ends. It returns the error of the read.
func (w *server) receive(ctx context.Context, conn *ipc.FrameConn, to chan<- frame) error {
	for ctx.Err() == nil {
		body, err := conn.ReadFrame()
		if err != nil {
			return err
		}
		if ipc.IsFile(body) { // operate may wait for it
			var request ipc.Request
			if err := ipc.DecodeFrame(body, &request); err != nil {
				return err
			}
			if request.File != nil {
				w.handed.take(*request.File)
			}
			continue
		}
		f := frame{from: conn, large: body}
		if len(body) < largeFrame {
			f.large = nil
			if err := ipc.DecodeFrame(body, &f.request); err != nil {
				return err
			}
		}
		sendOr(ctx, to, f)
	}
	return ctx.Err()
}

// operator returns operate as a goroutine of its own has it, and lets executor.later reach it.
func (w *server) operator(operations <-chan frame, broken chan<- error) func() {
	extra, ended := make(chan func(), 1), make(chan struct{})
	w.exec.later = func(do func()) {
		select {
		case extra <- do:
		case <-ended:
		}
	}
	return func() {
		defer close(ended)
		w.operate(operations, extra, broken)
	}
}

// operate executes the operations one after the other, and the functions of extra between
// them, until operations is closed. If a large frame is not an operation, it sends an error
// to broken and executes nothing more.
func (w *server) operate(operations <-chan frame, extra <-chan func(), broken chan<- error) {
	var rest <-chan time.Time
	adopted := false
	if w.sparing {
		rest = time.After(restAfter)
	}
	for {
		select {
		case <-rest: // decoding many clients has left much garbage
			rest = nil
			if w.sparing {
				w.sparing = false
				heap.EndSparing()
			}
			w.exec.clients.KeepSums() // now, and not when a daemon that starts asks for them
			debug.FreeOSMemory()
			if adopted {
				adopted = false
				w.program.GiveBack()
			}
		case f, open := <-operations:
			if !open {
				return
			}
			request := f.request
			if f.large != nil {
				err := ipc.DecodeFrame(f.large, &request)
				if err == nil && request.Operation == nil {
					err = fmt.Errorf("a frame of %d bytes is no operation", len(f.large))
				}
				if err != nil {
					broken <- err
					for range operations { // so that serve does not block while it sends
					}
					return
				}
			}
			w.execute(f, &request)
			if w.sparing || request.Operation != nil && len(request.Operation.Users) >= manyUsers {
				rest = time.After(restAfter)
			}
			if request.Adopt != nil {
				rest, adopted = time.After(adoptedRest), true
			}
		case do := <-extra:
			do()
		}
	}
}

// execute answers one request that has to wait for the ones before it.
func (w *server) execute(f frame, request *ipc.Request) {
	switch {
	case request.Operation != nil:
		opens := w.sparing && request.Operation.Kind == state.OpOpenInbound
		if opens { // once they listen, the worker before closes its listeners, and needs more for that
			debug.FreeOSMemory()
		}
		failure := w.exec.do(request.Operation)
		if opens {
			w.program.GiveBack()
		}
		w.queue.answer(f.from, ipc.Message{ID: request.ID, Error: failure})
	case request.Adopt != nil:
		w.running(f.from, request.ID, request.Adopt, f.draining)
	case request.Clients != nil:
		w.queue.answer(f.from, ipc.Message{ID: request.ID, Clients: w.exec.clients.Page(*request.Clients)})
	default:
		w.queue.answer(f.from, ipc.Message{ID: request.ID, Info: w.info()})
	}
}

// drain closes the listeners and then calls answer. It returns a channel that is closed once the
// last stream has ended or the timeout is over. Streams over XHTTP that the next worker serves, and whose
// requests came to this one, end with this one too.
//
// Listeners of datagrams go on for the connections that they have, where a relay passes the other ones
// to the next worker. Where the next worker, which replaced tells of, has no relay, or knows of no
// sources, the two would lose each other's datagrams: these listeners close too, and their clients
// connect again.
func (w *server) drain(ctx context.Context, timeout time.Duration, replaced bool, answer func()) <-chan struct{} {
	w.draining = true
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(ctx, timeout)
	go func() {
		defer close(done)
		defer cancel()
		w.program.GiveBack()
		xhttp.Drain()
		serves := w.relay != nil && w.relay.Drain()
		passes := w.relay != nil && (serves || !replaced)
		_ = w.exec.inbounds.drain(map[lasting]bool{lastsByID: passes, lastsBySource: passes && w.relay.KeepsSources()})
		answer()
		debug.FreeOSMemory() // its last streams may last
		w.program.GiveBack()
		tick := time.NewTicker(drainPoll)
		defer tick.Stop()
		grace := time.Now().Add(min(drainGrace, timeout))
		for w.exec.serves() || xhttp.Held() || time.Now().Before(grace) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return done
}
