package xray

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
)

// adoptTimeout bounds how long one worker is asked for what it runs. It may execute an operation
// of the daemon before.
const adoptTimeout = opTimeout + 10*time.Second

// Adopted is what Adopt found.
type Adopted struct {
	Workers int // that serve on
	// Events are the presence of clients since the daemon before ended, in the order of time.
	Events []ipc.Presence
	// Online is who was online then, by worker, in the order of time.
	Online []ipc.Presence
}

// Adopt takes over the workers of an earlier daemon that count into the counters of epoch. They go
// on with what they run, until Restore or Apply brings the one that serves to a state. A worker
// that can't be adopted is ended before Adopt returns. Call it before Run, at most once.
func (e *Engine) Adopt(ctx context.Context, epoch string) (a Adopted, err error) {
	found, err := e.findWorkers(ctx, epoch)
	if err != nil {
		return a, err
	}
	e.crashedAlone(found)
	for _, f := range found {
		a.Workers++
		a.Events, a.Online = append(a.Events, f.backlog...), append(a.Online, f.adopted.Online...)
		w, running := f.workerClient, f.adopted
		e.deps.Log.Info("a worker of the daemon before is adopted", logkey.PID, w.process.PID(), logkey.StartedAt, w.started, logkey.Draining, running.Draining)
		if running.Dropped > 0 {
			e.deps.Log.Warn("more happened while no daemon ran than the worker keeps; some clients' comings and goings are not known", logkey.PID, w.process.PID(), logkey.Dropped, running.Dropped)
		}
		switch {
		case running.Draining:
			e.draining(w, running.State)
			go e.endDrained(w, time.Duration(e.drainTimeout.Load()))
		case e.worker != nil:
			e.rest = append(e.rest, &drainedWorker{w, running.State})
		default:
			e.serveAgain(w, running.State)
		}
		go e.watch(w)
	}
	for _, events := range [][]ipc.Presence{a.Events, a.Online} {
		slices.SortStableFunc(events, func(a, b ipc.Presence) int { return a.At.Compare(b.At) })
	}
	e.publish()
	return a, nil
}

// foundWorker is a worker while it is adopted.
type foundWorker struct {
	*workerClient
	// backlog is the presence that the worker sent before it said who is online.
	backlog []ipc.Presence
}

// findWorkers connects with all workers, and ends those that can't be adopted. The newest that
// listens comes first.
func (e *Engine) findWorkers(ctx context.Context, epoch string) ([]*foundWorker, error) {
	folder, err := ipc.OpenFolder(e.hire().dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	names, err := folder.Names()
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var found []*foundWorker
	var asking sync.WaitGroup
	for _, name := range names {
		asking.Go(func() {
			if f := e.adoptOne(ctx, folder, name, epoch); f != nil {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, f)
			}
		})
	}
	asking.Wait()
	slices.SortFunc(found, func(a, b *foundWorker) int { return b.started.Compare(a.started) })
	return found, nil
}

// adoptOne returns the worker of a name; nil where there is none that can be adopted.
func (e *Engine) adoptOne(ctx context.Context, folder *ipc.Folder, name, epoch string) *foundWorker {
	conn, pid, err := folder.Dial(name)
	switch {
	case errors.Is(err, ipc.ErrNobody):
		folder.Remove(name)
		return nil
	case err != nil:
		e.deps.Log.Error("a worker of the daemon before can't be reached", logkey.Name, name, logkey.Error, err)
		return nil
	}
	// The process listens on the socket, so that it has the id. It is the right process if it
	// still answers afterwards.
	process, err := supervise.Adopt(pid)
	if err != nil {
		_ = conn.Close()
		e.deps.Log.Error("a worker of the daemon before can't be adopted", logkey.PID, pid, logkey.Error, err)
		return nil
	}
	f := &foundWorker{}
	f.workerClient = newWorkerClient(process, conn, func(_ *workerClient, m ipc.Message) { e.heardOf(f, m) })
	ctx, cancel := context.WithTimeoutCause(ctx, adoptTimeout, fmt.Errorf("no answer within %s", adoptTimeout))
	defer cancel()
	err = f.introduce(ctx, e, name, epoch)
	if err == nil {
		go f.forgetSocket(e.hire().dir, name)
		return f
	}
	e.deps.Log.Error("a worker of the daemon before can't be adopted; it is ended", logkey.PID, pid, logkey.Error, err)
	f.closing.Store(true)
	process.Stop(stopGrace)
	folder.Remove(name)
	return nil
}

// introduce makes the handshake, and asks the worker what it runs.
func (f *foundWorker) introduce(ctx context.Context, e *Engine, name, epoch string) error {
	if !strings.HasPrefix(name, "worker-") {
		return errors.New("it checks a configuration for the daemon before")
	}
	build, err := f.greet(ctx, e.config.Secret)
	if err != nil {
		return err
	}
	f.build = build
	go f.read()
	m, err := f.call(ctx, ipc.Request{Adopt: &ipc.Adopt{Epoch: epoch, Orphan: e.orphan()}})
	if err != nil {
		return err
	}
	if m.Running == nil {
		return errors.New("it does not say what it runs")
	}
	info, err := f.call(ctx, ipc.Request{Ping: true})
	if err != nil {
		return err
	}
	f.adopted, f.started, f.crash = m.Running, m.Running.StartedAt, e.crashOutput(name)
	f.adoptedAt = time.Now().UTC()
	if err := json.Unmarshal([]byte(m.Running.Settings), &f.kept); err != nil {
		return fmt.Errorf("read what it keeps: %w", err)
	}
	f.confined = info.Info.Confined
	f.version, f.processors = info.Info.XrayVersion, info.Info.Processors
	return nil
}

// heardOf handles a message of a worker that is adopted. The presence before the answer to Adopt
// is what the daemon before did not read: the presenceMerger knows nothing of it.
func (e *Engine) heardOf(f *foundWorker, m ipc.Message) {
	switch {
	case m.Running != nil:
		f.files.nameAll(m.Running.State) // the worker may ask from now on
		e.presence.adopt(f.workerClient, m.Running)
	case m.Presence != nil && !e.presence.knows(f.workerClient):
		f.backlog = append(f.backlog, m.Presence...)
	default:
		e.heard(f.workerClient, m)
	}
}

// crashedAlone reports workers that crashed while no daemon ran, and removes the crash output of
// those that ended otherwise. found are those that run.
func (e *Engine) crashedAlone(found []*foundWorker) {
	files, _ := filepath.Glob(e.crashOutput("*")) // the pattern is valid
	for _, file := range files {
		if slices.ContainsFunc(found, func(f *foundWorker) bool { return f.crash == file }) {
			continue
		}
		words, err := keepCrash(file)
		if err != nil {
			e.deps.Log.Warn("keep the crash output", logkey.Error, err)
		}
		if words == "" {
			continue
		}
		e.deps.Log.Error("a worker crashed while no daemon ran", logkey.Reason, words)
		e.deps.Failed(Failure{Crash: true, Suspect: true, Fault: fault.OnHost("", "the xray worker ended while no daemon ran: %s", words)})
	}
}

// EndWorkers ends the workers that a daemon has left, whichever it was, and returns how many.
func EndWorkers(runtimeDir string, grace time.Duration) (ended int, err error) {
	if !ipc.HasFolder(runtimeDir) {
		return 0, nil
	}
	folder, err := ipc.OpenFolder(runtimeDir)
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	names, err := folder.Names()
	for _, name := range names {
		conn, pid, dialErr := folder.Dial(name)
		if errors.Is(dialErr, ipc.ErrNobody) {
			folder.Remove(name)
			continue
		}
		var process *supervise.Process
		if dialErr == nil {
			process, dialErr = supervise.Adopt(pid)
			// The connection is open: the process has not ended before it was adopted.
			dialErr = cmp.Or(dialErr, conn.Close())
		}
		if dialErr != nil {
			err = errors.Join(err, dialErr)
			continue
		}
		process.Stop(grace)
		folder.Remove(name)
		ended++
	}
	return ended, err
}
