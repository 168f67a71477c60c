package xray

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/supervise"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// Config says how the Engine runs its worker.
type Config struct {
	Worker       supervise.Spec // the worker's command; Line and ExtraFiles are the Engine's
	CountersPath string
	// DrainTimeout bounds how long an old worker lives on for its open streams
	// once a new one has taken its place.
	DrainTimeout time.Duration
}

// Defaults of the Engine's clocks.
const (
	bootTimeout   = 30 * time.Second
	opTimeout     = 30 * time.Second
	repairWait    = 10 * time.Second
	backoffMin    = 500 * time.Millisecond
	backoffMax    = 30 * time.Second
	healthyUptime = time.Minute
	stopGrace     = 2 * time.Second
)

// Deps is what the Engine tells to. The functions must return at once.
type Deps struct {
	Log *slog.Logger
	// Presence tells who comes and goes, merged over the workers.
	Presence func(ipc.Presence)
	// SlotsClosed tells slots that were removed and that no worker counts to
	// any more.
	SlotsClosed func(slots []uint32)
	// Failed tells what broke without anybody having asked for something.
	Failed func(Failure)
}

// Failure is something that broke by itself.
type Failure struct {
	*fault.Fault
	Crash   bool // of the worker
	Suspect bool // the crash may be the configuration's fault: nobody killed the worker from outside
	// Notice tells that a worker could not take something new, as a renewed certificate,
	// and that what it had goes on.
	Notice bool
	// Changing tells that the worker ended over a change that did not come to be: what
	// runs has no part in it.
	Changing bool
}

// Engine keeps a worker process running in the state that was applied last.
//
// One goroutine, the one of Run, decides and owns progress. Apply and Restore send it a
// request and wait for its answer, so that one change follows the other.
//
//	Apply, Restore ──requests──▶ Run ──operations──▶ worker process
//	                              ▲                     │ answers, presence, closed slots
//	       a worker ended, retryAt, ticks               ▼
//	                              └──────────── read (one goroutine per worker)
//
// Beside it run, for each worker: read, which takes the worker's messages in their order
// and hands presence and closed slots to the presenceMerger; watch, which pings the worker
// and kills one that hangs; and for a drained worker one goroutine that wakes Run at its
// end.
//
// The functions of Deps are called on Run's goroutine (Failed) and on the read goroutines
// (Presence, SlotsClosed, Failed of a notice), and watch's (Failed of descriptors). They must return at once: while one of them
// waits, the worker's answers wait behind it.
//
// Locks: Engine.mu guards status. presenceMerger.mu guards who is online; the functions of
// Deps are called while it is held. workerClient.mu guards the calls that wait for an
// answer. None of the three is taken while another one is held.
//
// What a failed change leaves: the operations that were done are undone by the difference
// back, each by itself. An inbound that cannot be brought back is missing until a later
// try, and is named in the error and in status. A worker that gives no answer may have done
// anything: it is killed, and the next one gets the wanted state.
type Engine struct {
	config   Config
	deps     Deps
	requests chan request
	presence *presenceMerger
	backoff  supervise.Backoff
	wakeUp   chan struct{} // a draining worker ended

	// The goroutine of Run owns these two.
	progress
	workersStarted int

	mu     sync.Mutex
	status Status
}

// drainedWorker is an old worker that serves its open streams to their end, and
// the state that it was left with.
type drainedWorker struct {
	*workerClient
	state state.State
}

type request struct {
	ctx      context.Context
	state    state.State
	restore  bool
	answered chan error
}

// New makes an Engine that runs nothing until Run.
func New(config Config, deps Deps) (*Engine, error) {
	switch {
	case config.Worker.Path == "":
		return nil, errors.New("xray engine: no worker command is given")
	case config.CountersPath == "":
		return nil, errors.New("xray engine: no counters file is given")
	}
	e := &Engine{
		config: config, deps: deps,
		requests: make(chan request),
		backoff:  supervise.Backoff{Min: backoffMin, Max: backoffMax, Healthy: healthyUptime},
		wakeUp:   make(chan struct{}, 1),
	}
	e.presence = newPresenceMerger(deps.Presence, deps.SlotsClosed)
	e.config.Worker.Line = newWorkerLines(deps.Log).line
	return e, nil
}

// Apply makes the worker run the state, or leaves it as it was and tells why:
// an *InvalidError or *OperationError where the configuration is at fault.
func (e *Engine) Apply(ctx context.Context, state state.State) error {
	return e.ask(request{ctx: ctx, state: state})
}

// Restore makes the worker run as much of the state as it can; what it can't is
// told to Failed and tried again. It is for the last good state at the start,
// where there is nothing to go back to.
func (e *Engine) Restore(ctx context.Context, state state.State) error {
	return e.ask(request{ctx: ctx, state: state, restore: true})
}

func (e *Engine) ask(r request) error {
	r.answered = make(chan error, 1)
	select {
	case e.requests <- r:
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
	select {
	case err := <-r.answered:
		return err
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// Run serves until ctx ends, and stops the worker then. It returns no error:
// a worker that dies is started again.
func (e *Engine) Run(ctx context.Context) error {
	defer e.stop()
	warn := time.NewTicker(warnInterval)
	defer warn.Stop()
	for {
		var ended <-chan struct{}
		if e.worker != nil {
			ended = e.worker.process.Done()
		}
		var retry <-chan time.Time
		if !e.retryAt.IsZero() {
			retry = time.After(time.Until(e.retryAt))
		}
		select {
		case <-ctx.Done():
			return nil
		case r := <-e.requests:
			err := e.handle(ctx, r)
			e.publish() // before: whoever asked may look at it at once
			r.answered <- err
		case <-ended:
			e.workerEnded(ctx)
		case <-e.wakeUp:
			e.forgetDrained()
		case <-retry:
			e.retry(ctx)
		case <-warn.C:
			e.warn()
		}
		e.publish()
	}
}

// handle answers a request. life ends with the engine, and ends what a request
// that was given up still has to undo.
func (e *Engine) handle(life context.Context, r request) error {
	unserved := e.unserved(state.ClientsGone(e.wanted, r.state))
	if r.restore {
		e.want(r.state)
		e.warn()
		err := e.restore(r.ctx)
		e.finishRemovals(r.ctx, r.state, unserved)
		return err
	}
	within := e.withoutUnrestored(r.state)
	if err := e.apply(r.ctx, life, within, r.state); err != nil {
		return err
	}
	e.finishRemovals(r.ctx, r.state, unserved)
	e.want(r.state)
	e.settle()
	e.tried()
	if len(e.unrestored) > 0 {
		e.tryAgain(time.Now())
	}
	e.warn()
	return nil
}

// heard takes what a worker tells by itself.
func (e *Engine) heard(w *workerClient, m ipc.Message) {
	e.presence.heard(w, m)
	if m.Notice != nil {
		e.deps.Log.Error("the worker can't take something", "tag", m.Notice.Tag, "error", m.Notice.Message)
		e.deps.Failed(Failure{Notice: true, Fault: fault.OnHost(m.Notice.Tag, "%s", m.Notice.Message)})
	}
}

// workerEnded puts a dead worker away and starts the next one, at once the
// first time and with growing waits after.
func (e *Engine) workerEnded(ctx context.Context) {
	dead := e.worker
	<-dead.heardAll
	e.presence.workerEnded(dead)
	wait := e.backoff.Next(time.Since(dead.started))
	e.died(time.Now().Add(wait))
	reason, suspect := e.whyEnded(dead)
	e.deps.Log.Error("the worker ended; starting it again", "pid", dead.process.PID(), "reason", reason, "in", wait)
	// No pid and no wait: the same failure has the same words.
	e.deps.Failed(Failure{
		Crash: true, Suspect: suspect, Changing: dead.changing,
		Fault: fault.OnHost("", "the xray worker ended: %s; it is started again with the same state", reason),
	})
	e.mu.Lock()
	e.status.Restarts++
	e.status.LastRestart = "crash: " + reason
	e.mu.Unlock()
	if wait == 0 {
		e.retry(ctx)
	}
}

// whyEnded tells why a worker ended, with the words of its panic where it had
// some, and whether its configuration may be the reason.
func (e *Engine) whyEnded(dead *workerClient) (reason string, suspect bool) {
	reason = "exit status 0"
	if err := dead.process.Err(); err != nil {
		reason = err.Error()
	}
	words, err := keepCrash(dead.crash)
	if err != nil {
		e.deps.Log.Warn("keep the crash output", "error", err)
	}
	if hang, ok := dead.hang.Load().(error); ok {
		return fmt.Sprintf("it was killed, for it hung: %v", hang), true
	}
	if words != "" {
		return reason + ": " + words, true
	}
	return reason, !killed(dead.process.Err())
}

// retry goes on towards the wanted state after a crash or a partial restore.
func (e *Engine) retry(ctx context.Context) {
	e.tried()
	err := e.restore(ctx)
	e.finishRemovals(ctx, e.wanted, nil)
	if err != nil {
		e.deps.Log.Error("restore the last good state", "error", err)
		if e.retryAt.IsZero() {
			e.tryAgain(time.Now().Add(e.backoff.Next(0)))
		}
	}
}

func (e *Engine) stop() {
	var stopping sync.WaitGroup
	for _, w := range e.liveWorkers() {
		stopping.Go(func() {
			w.close()
			w.process.Stop(stopGrace)
			<-w.heardAll
			e.presence.workerEnded(w)
			w.forgetCrash()
		})
	}
	stopping.Wait()
	e.progress = progress{wanted: e.wanted}
	e.publish()
}
