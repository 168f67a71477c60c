package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	golog "log"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	xlog "github.com/xtls/xray-core/common/log"
	"github.com/xtls/xray-core/common/platform/filesystem"
	"github.com/xtls/xray-core/core"

	"nodeagent/internal/counters"
	"nodeagent/internal/descriptors"
	"nodeagent/internal/fault"
	"nodeagent/internal/filewatch"
	"nodeagent/xray/ipc"
	"nodeagent/xray/members"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/certfiles"
	"nodeagent/xray/worker/confine"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/life"
	"nodeagent/xray/worker/reach"
	"nodeagent/xray/worker/traffic"
)

const (
	// drainPoll is how often a drained worker checks whether its last stream has ended.
	drainPoll = 50 * time.Millisecond
	// drainGrace is how long a drained worker lives at least. A connection that it has
	// accepted may still be in its handshake, and have no stream yet.
	drainGrace = 5 * time.Second
	// After an operation with manyUsers or more users, and a pause of restAfter, the worker
	// gives memory back to the kernel.
	manyUsers = 500
	restAfter = time.Second
)

// Run executes the daemon's requests from conn. It returns nil when the daemon closes conn
// and after a drain; the process ends then. log gets xray-core's warnings and errors, one
// line each.
func Run(ctx context.Context, conn *ipc.FrameConn, log io.Writer) error {
	w := &server{conn: conn, queue: newMessageQueue()}
	var request ipc.Request
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
		return errors.Join(err, conn.Write(ipc.Message{ID: request.ID, Error: operationError(err)}))
	}
	defer w.exec.core.Close()

	var sending sync.WaitGroup
	sending.Go(func() { w.queue.drainTo(conn) })
	defer sending.Wait()
	defer w.queue.close()

	w.queue.push(ipc.Message{ID: request.ID, Info: w.info()})
	return w.serve(ctx)
}

// server handles the daemon's requests.
//
// The goroutine of Run calls serve: it answers pings and starts drains, so that pings are
// answered during an operation too. receive owns the reading side of conn. operate owns exec
// and executes operations one after the other. messageQueue.drainTo owns the writing side of
// conn. Any goroutine may push into queue, which never blocks. No field has a lock: boot sets
// all fields before the other goroutines start, except exec.later, which serve sets before it
// starts operate.
//
// The order of the end: conn ends, or the last stream of a drain does. serve returns, and
// waits until operate has finished the operations that it has got. Then Run closes the queue,
// waits until all messages are written, and closes xray-core.
type server struct {
	conn  *ipc.FrameConn
	queue *messageQueue
	exec  *executor
	log   *lineLog // nil in a dry run, and before the instance has started
	// handed gets files from the daemon. confined says what confines this process.
	handed   *handedFiles
	confined string
}

func (w *server) boot(ctx context.Context, boot *ipc.Boot, log io.Writer) error {
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
	var kept error // a worker that keeps a capability is better than none
	if !boot.NetAdmin {
		kept = confine.DropNetAdmin()
	}
	w.handed = newHandedFiles(w.queue.push)
	filesystem.NewFileReader = w.handed.open // process-wide, as xray-core itself is
	if w.confined, err = confine.Restrict(confine.Paths{
		Read: append(assetFolders(), boot.ReadFolders...), Sockets: boot.SocketFolders,
		LeftOut: func(folder string, err error) {
			w.tell(ipc.Notice{Message: fmt.Sprintf("the worker can't use the folder %s: %v", folder, err)})
		},
	}); err != nil {
		return err
	}
	if kept != nil {
		w.confined += fmt.Sprintf("; it keeps CAP_NET_ADMIN: %v", kept)
	}
	if boot.DryRun && !boot.BaseRuns {
		if err := members.Base(boot.Base); err != nil {
			return err
		}
	}
	clients := traffic.NewRegistry(w.queue.push)
	if boot.IPv6Prefix > 0 {
		clients.IPv6Prefix = boot.IPv6Prefix
	}
	in, err := newInstance(ctx, boot.Base, clients)
	if err != nil {
		return err
	}
	in.resetKey, in.reach = boot.ResetKey, reach.New(boot.ClientNetworks)
	reach.Install(in.reach)
	w.exec = &executor{
		instance: in, slots: slots, dryRun: boot.DryRun, held: boot.Held, shells: map[string]state.Inbound{},
	}
	if boot.DryRun {
		return nil
	}
	if err := in.reach.Refresh(); err != nil {
		return err
	}
	go in.reach.Follow(ctx)
	watch, err := filewatch.New()
	if err != nil {
		w.tell(ipc.Notice{Message: fmt.Sprintf("certificate and geo files are checked only once a minute, because they can't be watched: %v", err)})
	}
	w.exec.files, w.exec.watch, w.exec.tell = certfiles.New(watch, w.tell, w.handed.open), watch, w.tell
	xlog.RegisterHandler(&lineLog{out: io.Discard}) // xray-core's messages about its start are of no use
	go life.All.Run(ctx)
	if err := in.core.Start(); err != nil {
		return fmt.Errorf("start xray instance: %w", err)
	}
	w.log = &lineLog{out: log}
	xlog.RegisterHandler(w.log)
	golog.SetFlags(0)
	golog.SetOutput(w.log)
	return nil
}

func (w *server) tell(n ipc.Notice) { w.queue.push(ipc.Message{Notice: &n}) }

// catchCrash makes Go write the message and stack of a panic also into the file path, which
// the daemon reads after the worker has ended.
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

// frame is a request that was received; a large one is not decoded yet.
type frame struct {
	request ipc.Request
	large   []byte
}

// largeFrame is the size in bytes from which operate decodes a frame and not receive. While
// receive decodes, pings wait.
const largeFrame = 64 << 10

// serve answers pings at once, also while an operation runs.
func (w *server) serve(ctx context.Context) error {
	operations, extra := make(chan frame, 64), make(chan func(), 1)
	ended, broken := make(chan struct{}), make(chan error, 2)
	w.exec.later = func(do func()) {
		select {
		case extra <- do:
		case <-ended:
		}
	}
	var working sync.WaitGroup
	working.Go(func() {
		defer close(ended)
		w.operate(operations, extra, broken)
	})
	defer working.Wait()
	defer close(operations)
	defer w.handed.close()
	if w.exec.watch != nil {
		go w.exec.watch.Run(ctx) // only now, because its functions need exec.later
	}
	frames := make(chan frame)
	go func() { broken <- w.receive(frames) }()
	var drained <-chan struct{}
	for {
		select {
		case f := <-frames:
			switch {
			case f.large != nil || f.request.Operation != nil:
				operations <- f
			case f.request.Drain != nil:
				drained = w.drain(ctx, f.request)
			default:
				w.queue.push(ipc.Message{ID: f.request.ID, Info: w.info()})
			}
		case err := <-broken:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read request: %w", err)
		case <-drained:
			return nil
		}
	}
}

// receive passes on the daemon's frames until conn ends. It returns the error of the read.
func (w *server) receive(to chan<- frame) error {
	for {
		body, err := w.conn.ReadFrame()
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
		f := frame{large: body}
		if len(body) < largeFrame {
			f.large = nil
			if err := ipc.DecodeFrame(body, &f.request); err != nil {
				return err
			}
		}
		to <- f
	}
}

// operate executes the operations one after the other, and the functions of extra between
// them, until operations is closed. If a large frame is not an operation, it sends an error
// to broken and executes nothing more.
func (w *server) operate(operations <-chan frame, extra <-chan func(), broken chan<- error) {
	var rest <-chan time.Time
	for {
		select {
		case <-rest: // decoding many clients has left much garbage
			rest = nil
			debug.FreeOSMemory()
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
			w.queue.push(ipc.Message{ID: request.ID, Error: w.exec.do(request.Operation)})
			if len(request.Operation.Users) >= manyUsers {
				rest = time.After(restAfter)
			}
		case do := <-extra:
			do()
		}
	}
}

// drain closes the listeners and then answers the request. It returns a channel that is closed
// once the last stream has ended or the request's timeout is over.
func (w *server) drain(ctx context.Context, request ipc.Request) <-chan struct{} {
	timeout := request.Drain.Timeout
	done := make(chan struct{})
	ctx, cancel := context.WithTimeout(ctx, timeout)
	go func() {
		defer close(done)
		defer cancel()
		_ = w.exec.inbounds.Close()
		w.queue.push(ipc.Message{ID: request.ID})
		tick := time.NewTicker(drainPoll)
		defer tick.Stop()
		grace := time.Now().Add(min(drainGrace, timeout))
		for w.exec.clients.Streams.Load() > 0 || time.Now().Before(grace) {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return done
}

func (w *server) info() *ipc.WorkerInfo {
	exhausted := descriptors.Exhausted()
	if exhausted == "" && w.log != nil {
		exhausted = w.log.takeExhausted()
	}
	refused := w.exec.clients.Refused.Counts()
	refused.Node = w.exec.reach.Denied()
	return &ipc.WorkerInfo{
		XrayVersion:        core.Version(),
		Build:              ipc.Build(),
		Processors:         runtime.GOMAXPROCS(0),
		Goroutines:         runtime.NumGoroutine(),
		Streams:            w.exec.clients.Streams.Load(),
		Refused:            refused,
		RefusedConnections: guard.Refused(),
		HeldBack:           time.Duration(w.exec.clients.HeldBack.Load()).Seconds(),
		Exhausted:          exhausted,
		Confined:           w.confined,
	}
}

func operationError(err error) *fault.Fault {
	if err == nil {
		return nil
	}
	if failure, ok := errors.AsType[*fault.Fault](err); ok {
		return failure
	}
	return fault.Of(err)
}
