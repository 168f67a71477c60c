package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	xlog "github.com/xtls/xray-core/common/log"
	"github.com/xtls/xray-core/core"

	"nodeagent/internal/counters"
	"nodeagent/xray"
)

const (
	// drainPoll is how often a drained worker looks whether its last stream ended.
	drainPoll = 50 * time.Millisecond
	// drainGrace is how long it lives at the least: a connection that it has
	// accepted may be in its handshake still, and no stream yet.
	drainGrace = 5 * time.Second
	// manyUsers in one operation make the worker give memory back, restAfter the
	// last of such operations.
	manyUsers = 500
	restAfter = time.Second
)

// Run serves the daemon on conn until the conversation ends, which is the
// worker's end too: it returns nil then, and after a drain. log gets
// xray-core's warnings and errors, one line each.
func Run(ctx context.Context, conn *xray.FrameConn, log io.Writer) error {
	w := &server{conn: conn, queue: newMessageQueue()}
	var request xray.Request
	if err := conn.Read(&request); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("read first request: %w", err)
	}
	if request.Boot == nil {
		return errors.New("the first request is no boot")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := w.boot(ctx, request.Boot, log); err != nil {
		return errors.Join(err, conn.Write(xray.Message{ID: request.ID, Error: operationError(err)}))
	}
	defer w.exec.core.Close()

	var sending sync.WaitGroup
	sending.Go(func() { w.queue.drainTo(conn) })
	defer sending.Wait()
	defer w.queue.close()

	w.queue.push(xray.Message{ID: request.ID, Info: w.info()})
	return w.serve(ctx)
}

// server is one worker's conversation with the daemon.
type server struct {
	conn  *xray.FrameConn
	queue *messageQueue
	exec  *executor
	watch *fileWatch // nil in a dry run
}

func (w *server) boot(ctx context.Context, boot *xray.Boot, log io.Writer) error {
	slots, err := counters.Open(boot.Counters)
	if err != nil {
		return err
	}
	if err := catchCrash(boot.CrashOutput); err != nil {
		return err
	}
	if !boot.DryRun {
		if err := slots.HoldShared(); err != nil {
			return err
		}
	}
	clients := newRegistry(w.queue.push)
	in, err := newInstance(ctx, boot.Base, clients)
	if err != nil {
		return err
	}
	w.exec = &executor{
		instance: in, slots: slots, dryRun: boot.DryRun, held: boot.Held, shells: map[string]xray.Inbound{},
	}
	if boot.DryRun {
		return nil
	}
	watch, err := newFileWatch()
	if err != nil {
		w.tell(xray.Notice{Message: fmt.Sprintf("files are looked at every minute alone, for they can't be watched: %v", err)})
	}
	w.exec.files = newCertificateFiles(watch, w.tell)
	w.watch = watch
	xlog.RegisterHandler(&lineLog{out: io.Discard}) // the start itself has nothing to tell
	if err := in.core.Start(); err != nil {
		return fmt.Errorf("start xray instance: %w", err)
	}
	xlog.RegisterHandler(&lineLog{out: log})
	return nil
}

func (w *server) tell(n xray.Notice) { w.queue.push(xray.Message{Notice: &n}) }

// catchCrash lets Go write what it says of a panic into a file too, from where
// the daemon reads it.
func catchCrash(path string) error {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open crash output: %w", err)
	}
	defer file.Close() // SetCrashOutput has its own copy
	if err := debug.SetCrashOutput(file, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("set crash output: %w", err)
	}
	return nil
}

// serve answers pings at once, also while an operation runs.
func (w *server) serve(ctx context.Context) error {
	operations, extra := make(chan xray.Request, 64), make(chan func(), 1)
	ended := make(chan struct{})
	w.exec.later = func(do func()) {
		select {
		case extra <- do:
		case <-ended:
		}
	}
	var working sync.WaitGroup
	working.Go(func() {
		defer close(ended)
		var rest <-chan time.Time
		for {
			select {
			case <-rest: // reading many clients left much behind
				rest = nil
				debug.FreeOSMemory()
			case request, open := <-operations:
				if !open {
					return
				}
				w.queue.push(xray.Message{ID: request.ID, Error: w.exec.do(request.Operation)})
				if len(request.Operation.Users) >= manyUsers {
					rest = time.After(restAfter)
				}
			case do := <-extra:
				do()
			}
		}
	})
	defer working.Wait()
	defer close(operations)
	if w.watch != nil {
		go w.watch.run(ctx) // once there is somebody to do what it finds
	}

	requests := make(chan xray.Request)
	failed := make(chan error, 1)
	go func() {
		defer close(requests)
		for {
			var request xray.Request
			if err := w.conn.Read(&request); err != nil {
				failed <- err
				return
			}
			requests <- request
		}
	}()
	var drained <-chan struct{}
	for {
		select {
		case request, open := <-requests:
			if !open {
				if err := <-failed; !errors.Is(err, io.EOF) {
					return fmt.Errorf("read request: %w", err)
				}
				return nil
			}
			switch {
			case request.Operation != nil:
				operations <- request
			case request.Drain != nil:
				drained = w.drain(ctx, request)
			default:
				w.queue.push(xray.Message{ID: request.ID, Info: w.info()})
			}
		case <-drained:
			return nil
		}
	}
}

// drain closes the listeners, and answers then. It returns a channel that is closed
// once the last stream has ended, or the time is over.
func (w *server) drain(ctx context.Context, request xray.Request) <-chan struct{} {
	timeout := request.Drain.Timeout
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(ctx, timeout)
	go func() {
		defer close(done)
		defer cancel()
		_ = w.exec.inbounds.Close()
		w.queue.push(xray.Message{ID: request.ID})
		tick := time.NewTicker(drainPoll)
		defer tick.Stop()
		grace := time.Now().Add(min(drainGrace, timeout))
		for w.exec.clients.streams.Load() > 0 || time.Now().Before(grace) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return done
}

func (w *server) info() *xray.WorkerInfo {
	return &xray.WorkerInfo{
		XrayVersion: core.Version(),
		Goroutines:  runtime.NumGoroutine(),
		Streams:     w.exec.clients.streams.Load(),
		Refused:     w.exec.clients.refused.counts(),
		HeldBack:    time.Duration(w.exec.clients.heldBack.Load()).Seconds(),
	}
}

func operationError(err error) *xray.OperationError {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*xray.OperationError](err); ok {
		return failure
	}
	return &xray.OperationError{Code: xray.FailureOther, Message: err.Error()}
}
