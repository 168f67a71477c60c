package xray

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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
	version string
	// confined is WorkerInfo.Confined.
	confined string
	netAdmin bool // it keeps CAP_NET_ADMIN
	// processors is GOMAXPROCS of the worker.
	processors int
	files      *handedFiles        // that it may ask for
	folders    map[string]folderID // that it may use; those that were there when it started
	crash      string              // the path of its crash output; empty for none
	hang       atomic.Value        // the error because of which watch killed it
	closing    atomic.Bool         // the engine has called close
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

// startWorker starts a worker process and boots it. events gets the messages that are not
// answers, one at a time and in order. events must not call the worker and wait for its
// answer, because it would wait for ever.
func startWorker(ctx context.Context, spec supervise.Spec, boot ipc.Boot, events func(*workerClient, ipc.Message)) (*workerClient, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	spec.ExtraFiles = []*os.File{theirs} // becomes WorkerFD
	process, err := supervise.Start(spec)
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	w := &workerClient{
		process: process, conn: ipc.NewFrameConn(ours), started: time.Now(), crash: boot.CrashOutput,
		netAdmin: boot.NetAdmin, files: newHandedFiles(), folders: identify(append(slices.Clone(boot.ReadFolders), boot.SocketFolders...)...),
		events: events, calls: map[uint64]chan ipc.Message{}, heardAll: make(chan struct{}),
	}
	w.conn.WriteTimeout = writeTimeout
	go w.read()
	info, err := w.call(ctx, ipc.Request{Boot: &boot})
	if err != nil {
		w.end()
		return nil, fmt.Errorf("boot xray worker: %w", err)
	}
	if info.Info.Build != ipc.Build() {
		w.end()
		return nil, fmt.Errorf("boot xray worker: it is of another build of node-agent (%s, with Xray %s) than the daemon (%s); restart node-agent", info.Info.Build, info.Info.XrayVersion, ipc.Build())
	}
	w.version, w.processors, w.confined = info.Info.XrayVersion, info.Info.Processors, info.Info.Confined
	return w, nil
}

func socketPair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "worker")
	theirs = os.NewFile(uintptr(fds[1]), "daemon")
	ours, err = net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), theirs.Close())
	}
	return ours, theirs, nil
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
		if m.ID == 0 {
			w.hearing.Store(true)
			w.heard.Add(1)
			w.events(w, m)
			w.hearing.Store(false)
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
}

// call sends a request and waits for its answer.
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
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return ipc.Message{}, errWorkerGone
		case m.Error != nil:
			return ipc.Message{}, m.Error
		}
		return m, nil
	case <-ctx.Done():
		w.forget(r.ID)
		return ipc.Message{}, context.Cause(ctx)
	}
}

// forget gives up the wait for an answer.
func (w *workerClient) forget(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, id)
}

func (w *workerClient) do(ctx context.Context, op state.Operation) error {
	_, err := w.call(ctx, ipc.Request{Operation: &op})
	return err
}

// close tells the worker to end. No call succeeds after it.
func (w *workerClient) close() {
	w.closing.Store(true)
	_ = w.conn.CloseWrite()
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
