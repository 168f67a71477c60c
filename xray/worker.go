package xray

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// writeTimeout is how long a worker may take to read a frame. A worker that takes longer
// hangs.
const writeTimeout = 10 * time.Second

// errWorkerGone means that the worker ended before it answered.
var errWorkerGone = errors.New("the xray worker ended before it answered")

// ErrFatalChange means that a worker ended during a change and no other process killed it.
// Another try may end the next worker too.
var ErrFatalChange = errors.New("the change ends the xray worker")

// workerClient is the daemon's side of one worker process.
//
// Any goroutine may call the worker. The goroutine of read owns the reading side of conn: it
// passes answers to the calls that wait, and other messages to events. It ends when the
// socket ends, and closes heardAll. mu guards nextID and calls. No other lock is taken while
// mu is held.
type workerClient struct {
	process *supervise.Process
	conn    *ipc.FrameConn
	started time.Time
	build   string // ipc.Build of the worker
	version string // of its xray-core; empty until it is known
	// adopted is what a worker of an earlier daemon ran when it was adopted, until Engine.know
	// has made a state of it.
	adopted   *ipc.Running
	adoptedAt time.Time // zero for a worker that this daemon has started
	// confined is WorkerInfo.Confined.
	confined string
	kept     kept
	// processors is GOMAXPROCS of the worker.
	processors int
	files      *handedFiles // that it may ask for
	crash      string       // the path of its crash output; empty for none
	hang       atomic.Value // the error because of which watch killed it
	closing    atomic.Bool  // the engine has called close
	checks     bool         // it serves nobody: ipc.Boot.DryRun
	beside     bool         // ipc.Boot.Beside
	// changing means that the worker ended during a change, which failed. Only the goroutine
	// of Run uses it.
	changing bool

	events  func(*workerClient, ipc.Message)
	heard   atomic.Uint64 // how many messages events got
	hearing atomic.Bool   // events is running; answers wait meanwhile
	// heardAll is closed after events has returned for the last message.
	heardAll chan struct{}

	mu     sync.Mutex
	nextID uint64
	calls  map[uint64]chan ipc.Message // by ID; nil once the socket has ended
}

// hire says how the engine connects with its workers.
type hire struct {
	dir    string // the runtime folder
	secret []byte
}

// startWorker starts a worker process and boots it. events gets the messages that are not
// answers, one at a time and in order. events must not call the worker and wait for its
// answer, because it would wait for ever.
func startWorker(ctx context.Context, spec supervise.Spec, how hire, name string, boot ipc.Boot, events func(*workerClient, ipc.Message)) (*workerClient, error) {
	process, conn, alone, err := startProcess(spec, how, name)
	if err != nil {
		return nil, err
	}
	if alone {
		boot.Orphan = ipc.Orphan{}
	}
	w := newWorkerClient(process, conn, events)
	w.checks = boot.DryRun
	w.kept = kept{boot.Settings, boot.NetAdmin, identify(append(slices.Clone(boot.ReadFolders), boot.SocketFolders...)...)}
	boot.Settings = w.kept.text()
	w.crash = boot.CrashOutput
	go w.forgetSocket(how.dir, name)
	build, err := w.greet(ctx, how.secret)
	if err != nil {
		process.Kill()
		<-process.Done()
		return nil, fmt.Errorf("boot xray worker: %w: %w", errWorkerGone, err)
	}
	go w.read()
	info, err := w.call(ctx, ipc.Request{Boot: &boot})
	if err != nil {
		w.end()
		return nil, fmt.Errorf("boot xray worker: %w", err)
	}
	if build != ipc.Build() {
		w.end()
		return nil, fmt.Errorf("boot xray worker: it is of another build of node-agent (%s, with Xray %s) than the daemon (%s); restart node-agent", build, info.Info.XrayVersion, ipc.Build())
	}
	w.build, w.version, w.processors, w.confined = build, info.Info.XrayVersion, info.Info.Processors, info.Info.Confined
	return w, nil
}

func newWorkerClient(process *supervise.Process, conn net.Conn, events func(*workerClient, ipc.Message)) *workerClient {
	w := &workerClient{
		process: process, conn: ipc.NewFrameConn(conn), started: time.Now(), files: newHandedFiles(),
		events: events, calls: map[uint64]chan ipc.Message{}, heardAll: make(chan struct{}),
	}
	w.conn.WriteTimeout = writeTimeout
	return w
}

// startProcess starts a worker process with its socket and the secret, and connects with it. Where
// the kernel lets nobody listen on a unix socket, as under RestrictAddressFamilies= without AF_UNIX
// (systemd.exec(5)), the worker gets one end of a pair, and alone is true: it ends with this daemon.
func startProcess(spec supervise.Spec, how hire, name string) (process *supervise.Process, conn net.Conn, alone bool, err error) {
	folder, err := ipc.OpenFolder(how.dir)
	if err != nil {
		return nil, nil, false, err
	}
	defer folder.Close()
	listener, err := folder.Listen(name)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EPERM) {
		process, conn, err := startWithPair(spec, how.secret)
		return process, conn, true, err
	} else if err != nil {
		return nil, nil, false, err
	}
	defer listener.Close()
	process, err = startWith(spec, listener, how.secret)
	if err == nil {
		if conn, _, err = folder.Dial(name); err != nil {
			process.Kill()
			<-process.Done()
		}
	}
	if err != nil {
		folder.Remove(name)
	}
	return process, conn, false, err
}

func startWithPair(spec supervise.Spec, secret []byte) (*supervise.Process, net.Conn, error) {
	conn, theirs, err := ipc.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	process, err := startWith(spec, theirs, secret)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return process, conn, nil
}

// startWith starts a worker process with a socket and the secret.
func startWith(spec supervise.Spec, socket *os.File, secret []byte) (*supervise.Process, error) {
	ours, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for a worker's secret: %w", err)
	}
	defer ours.Close()
	_, err = theirs.Write(secret) // a pipe has room for it
	if err = errors.Join(err, theirs.Close()); err != nil {
		return nil, fmt.Errorf("write a worker's secret: %w", err)
	}
	spec.ExtraFiles = []*os.File{socket, ours} // become SocketFD and SecretFD
	return supervise.Start(spec)
}

// greet makes the handshake. It gives up when ctx ends.
func (w *workerClient) greet(ctx context.Context, secret []byte) (build string, err error) {
	defer context.AfterFunc(ctx, func() { _ = w.conn.Close() })()
	build, err = ipc.Greet(w.conn, secret)
	w.conn.Compact = build == ipc.Build()
	if err != nil {
		_ = w.conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return build, err
}

// forgetSocket removes the worker's socket once the worker has ended.
func (w *workerClient) forgetSocket(dir, name string) {
	<-w.process.Done()
	ipc.RemoveSocket(dir, name)
}

func (w *workerClient) read() {
	defer close(w.heardAll)
	for {
		var m ipc.Message
		if err := w.conn.Read(&m); err != nil {
			break
		}
		if m.Read != nil {
			go w.hand(*m.Read)
			continue
		}
		if m.ID == 0 || m.Running != nil { // who is online, before what comes after it
			w.hearing.Store(true)
			w.heard.Add(1)
			w.events(w, m)
			w.hearing.Store(false)
		}
		if m.ID == 0 {
			continue
		}
		w.mu.Lock()
		answer := w.calls[m.ID]
		delete(w.calls, m.ID)
		w.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, answer := range w.calls {
		close(answer)
	}
	w.calls = nil
	_ = w.conn.Close()
	if !w.closing.Load() {
		go w.endSoon()
	}
}

// endSoon kills a worker that has closed its socket and does not end: nobody reaches it any more.
func (w *workerClient) endSoon() {
	select {
	case <-w.process.Done():
	case <-time.After(dying):
		w.process.Kill()
	}
}

// call sends a request and waits for its answer. Where ctx ends because the daemon leaves, a worker
// that serves gets to answer all the same.
func (w *workerClient) call(ctx context.Context, r ipc.Request) (ipc.Message, error) {
	if r.Operation != nil {
		w.files.name(r.Operation)
	}
	answer := make(chan ipc.Message, 1)
	w.mu.Lock()
	if w.calls == nil {
		w.mu.Unlock()
		return ipc.Message{}, errWorkerGone
	}
	w.nextID++
	r.ID = w.nextID
	w.calls[r.ID] = answer
	w.mu.Unlock()
	if err := w.conn.Write(r); errors.Is(err, ipc.ErrNotSent) {
		w.forget(r.ID)
		tag := ""
		if r.Operation != nil {
			tag = r.Operation.Tag
		}
		return ipc.Message{}, fault.InText(tag, "%v; split the inbound", err)
	} else if err != nil {
		if !w.closing.Load() {
			w.process.Kill() // the worker may have got half of a frame
		}
		return ipc.Message{}, fmt.Errorf("%w: %w", errWorkerGone, err)
	}
	ended := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case m, ok := <-answer:
			switch {
			case !ok:
				return ipc.Message{}, errWorkerGone
			case m.Error != nil:
				return ipc.Message{}, m.Error
			}
			return m, nil
		case <-ended:
			if cause := context.Cause(ctx); !errors.Is(cause, supervise.ErrLeave) || w.checks || r.Boot != nil {
				w.forget(r.ID)
				return ipc.Message{}, cause
			}
			// A caller without an answer kills the worker, and the next daemon has to find the worker.
			ended, late = nil, time.After(requestLimit(r))
		case <-late:
			w.forget(r.ID)
			return ipc.Message{}, fmt.Errorf("no answer within %s after the daemon was to leave", requestLimit(r))
		}
	}
}

// requestLimit is how long a request may take when the daemon leaves meanwhile.
func requestLimit(r ipc.Request) time.Duration {
	if r.Operation != nil {
		return operationLimit(*r.Operation)
	}
	return opTimeout
}

// forget gives up the wait for an answer.
func (w *workerClient) forget(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, id)
}

// usersTogether is how many clients one operation brings to the worker with an inbound. A worker of another
// build, which was adopted, may know neither OpPrepareInbound nor OpOpenInbound: it gets all clients in one.
func (w *workerClient) usersTogether() int {
	switch {
	case w == nil:
	case w.build != ipc.Build():
		return math.MaxInt
	case w.beside:
		return state.UsersTogether
	}
	return state.UsersAtOnce
}

func (w *workerClient) do(ctx context.Context, op state.Operation) error {
	_, err := w.call(ctx, ipc.Request{Operation: &op})
	return err
}

// stop ends the worker, which executes what it got before, and kills it after grace.
func (w *workerClient) stop(grace time.Duration) {
	w.closing.Store(true)
	go func() { _ = errors.Join(w.conn.Write(ipc.Request{End: true}), w.conn.CloseWrite()) }() // it may hang
	w.process.Stop(grace)
}

// leave disconnects from the worker, which serves on.
func (w *workerClient) leave() {
	w.closing.Store(true)
	_ = w.conn.Close()
}

// end kills the worker and waits until it has ended.
func (w *workerClient) end() {
	w.process.Kill()
	<-w.process.Done()
	<-w.heardAll
	w.forgetCrash()
}

// forgetCrash removes the crash output file of a worker that did not crash.
func (w *workerClient) forgetCrash() {
	if w.crash != "" {
		_ = os.Remove(w.crash)
	}
}
