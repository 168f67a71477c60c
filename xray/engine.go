package xray

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/logkey"
	"nodeagent/internal/supervise"
	"nodeagent/xray/borrowed"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// Config says how the Engine runs its worker.
type Config struct {
	Worker       supervise.Spec // the worker's command; Line and ExtraFiles are the Engine's
	CountersPath string
	// ResetKey is ipc.Boot.ResetKey; empty for none.
	ResetKey []byte
	// Secret is known to this node alone, and the same for all daemons of its state: a worker
	// and a daemon prove to each other that they know it. Empty for one that nobody else
	// learns, so that no other daemon adopts the workers.
	Secret []byte
	// OrphanTimeout is how long a worker serves on when its daemon has died; zero for not at
	// all.
	OrphanTimeout time.Duration
	// ClientNetworks are the networks of the node itself that clients may reach.
	ClientNetworks []netip.Prefix
	// IPv6Prefix is ipc.Boot.IPv6Prefix.
	IPv6Prefix int
	// DrainTimeout is the longest time that an old worker serves its open streams after a
	// new worker has replaced it.
	DrainTimeout time.Duration
}

// The times of the Engine.
const (
	bootTimeout   = 30 * time.Second
	opTimeout     = 30 * time.Second
	repairWait    = 10 * time.Second
	backoffMin    = 500 * time.Millisecond
	backoffMax    = 30 * time.Second
	healthyUptime = time.Minute
	stopGrace     = 2 * time.Second
)

// Deps are the functions that the Engine calls to report. They must return at once.
type Deps struct {
	Log *slog.Logger
	// Presence gets each client that goes online or offline, merged over all workers.
	Presence func(ipc.Presence)
	// SlotsClosed gets the slots of removed clients to which no worker adds bytes any more.
	SlotsClosed func(slots []uint32)
	// Failed gets each failure that is not the answer to Apply.
	Failed func(Failure)
	// Unfit gets why a worker of this build crashed, within a minute after it had taken over
	// from one of another build, and neither over a change nor because it hung. Nil for a caller
	// that can do nothing about it.
	Unfit func(reason string)
}

// Failure is a failure that no call of Apply caused.
type Failure struct {
	*fault.Fault
	Crash   bool // the worker ended, or did not start
	Suspect bool // the configuration may have caused the crash: no other process killed the worker
	// Notice means that the worker could not use something new, for example a renewed
	// certificate, and continues with the old one.
	Notice bool
	// Changing means that the worker ended during a change that failed. The configuration
	// that runs did not cause it.
	Changing bool
}

// Engine keeps a worker process running in the state that was applied last.
//
// The goroutine of Run makes all decisions and owns progress. Apply and Restore send it a
// request and wait for its answer, so that it handles one change after the other.
//
//	Apply, Restore ──requests──▶ Run ──operations──▶ worker process
//	                              ▲                     │ answers, presence, closed slots
//	       a worker ended, retryAt, ticks               ▼
//	                              └──────────── read (one goroutine per worker)
//
// Each worker has two more goroutines. read takes the worker's messages in their order and
// passes presence and closed slots to the presenceMerger. watch pings the worker and kills it
// if it hangs. A drained worker has a third goroutine, which wakes Run when the worker ends.
//
// The functions of Deps are called on three kinds of goroutines: Failed on Run's; Presence,
// SlotsClosed, and Failed with a notice on read's; Failed for missing file descriptors on
// watch's. They must return at once: while one of them waits, the worker's answers wait too.
//
// Locks: Engine.mu guards status. presenceMerger.mu guards which clients are online; Presence
// and SlotsClosed may be called while it is held. workerClient.mu guards the calls that wait
// for an answer. None of the three is taken while another one of them is held.
//
// After a failed change, the operations that succeeded are undone one by one, by the
// difference from what runs now to what ran before. An inbound that cannot be restored is
// missing until a later try succeeds; the error and the status name it. A worker that does
// not answer may have executed the operation or not: it is killed, and the next worker gets
// the wanted state.
type Engine struct {
	config   Config
	deps     Deps
	requests chan request
	presence *presenceMerger
	// drainTimeout is Config.DrainTimeout, which SetTimeouts changes; a time.Duration.
	drainTimeout  atomic.Int64
	orphanTimeout atomic.Int64 // Config.OrphanTimeout, likewise
	backoff       supervise.Backoff
	wakeUp        chan struct{} // a draining worker ended
	sites         *borrowed.Watch
	spares        *spares

	// The goroutine of Run owns progress and upgradeFailed; Adopt uses progress before Run.
	progress
	// upgradeFailed means that a worker of this build could not take over from an adopted one.
	upgradeFailed bool
	// upgradedAt is when a worker of this build took over from one of another; zero for never.
	upgradedAt time.Time

	mu         sync.Mutex
	status     Status
	turnedAway refusalLog
}

type request struct {
	ctx      context.Context
	state    state.State
	restore  bool
	answered chan error
}

// New makes an Engine. It starts no worker: Run does.
func New(config Config, deps Deps) (*Engine, error) {
	switch {
	case config.Worker.Path == "":
		return nil, errors.New("xray engine: no worker command is given")
	case config.CountersPath == "":
		return nil, errors.New("xray engine: no counters file is given")
	}
	if len(config.Secret) == 0 {
		config.Secret = []byte(rand.Text())
	}
	e := &Engine{
		config: config, deps: deps,
		requests: make(chan request),
		backoff:  supervise.Backoff{Min: backoffMin, Max: backoffMax, Healthy: healthyUptime},
		wakeUp:   make(chan struct{}, 1),
		sites:    borrowed.NewWatch(borrowed.Probe),
		spares:   newSpares(deps.Log),
	}
	e.SetTimeouts(config.DrainTimeout, config.OrphanTimeout)
	e.presence = newPresenceMerger(deps.Presence, deps.SlotsClosed)
	e.config.Worker.Line = newWorkerLines(deps.Log).line
	return e, nil
}

// SetTimeouts changes Config.DrainTimeout for the workers that drain from now on, and
// Config.OrphanTimeout for those that start or are adopted.
func (e *Engine) SetTimeouts(drain, orphan time.Duration) {
	e.drainTimeout.Store(int64(drain))
	e.orphanTimeout.Store(int64(orphan))
}

// orphan says how a worker goes on without this daemon.
func (e *Engine) orphan() ipc.Orphan {
	return ipc.Orphan{Timeout: time.Duration(e.orphanTimeout.Load()), Drain: time.Duration(e.drainTimeout.Load())}
}

func (e *Engine) hire() hire {
	return hire{filepath.Dir(e.config.CountersPath), e.config.Secret}
}

// Apply makes the worker run state. If it returns an error, the worker runs what it ran
// before, as far as that could be restored. The error contains a *fault.Fault if the
// configuration or the host caused it.
func (e *Engine) Apply(ctx context.Context, state state.State) error {
	return e.ask(request{ctx: ctx, state: state})
}

// Restore makes the worker run as much of state as possible. It reports the rest to
// Deps.Failed, and Run tries it again later. It is for the last good state after the start of
// the daemon, when there is no running state to return to.
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

// Run handles requests until ctx ends, and then stops all workers. Where the cause of ctx's end is
// supervise.ErrLeave it leaves them to the next daemon. It always returns nil: a worker that ends
// is started again.
func (e *Engine) Run(ctx context.Context) error {
	defer func() {
		e.spares.closeAll()
		if errors.Is(context.Cause(ctx), supervise.ErrLeave) {
			e.leave()
		} else {
			e.stop()
		}
	}()
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() { e.sites.Run(ctx) })
	warn := time.NewTicker(warnInterval)
	defer warn.Stop()
	look := time.NewTicker(strayEvery)
	defer look.Stop()
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
			e.keepSpares()
			e.publish() // before the answer, because the caller may read Status at once
			r.answered <- err
		case <-ended:
			e.workerEnded(ctx)
		case <-e.wakeUp:
			e.forgetDrained()
		case <-retry:
			e.retry(ctx)
		case <-warn.C:
			e.warn()
		case <-look.C:
			e.spares.look(e.worker)
		case <-e.sites.Changed():
			e.warn()
		}
		e.keepSpares()
		e.publish()
	}
}

func (e *Engine) keepSpares() {
	if e.worker == nil {
		e.spares.keep(nil, e.wanted)
	} else {
		e.spares.keep(e.worker, e.running)
	}
}

// handle executes a request. life is the context of Run. A rollback uses life and not the
// context of the request, because it must also finish after the caller has given up.
func (e *Engine) handle(life context.Context, r request) error {
	e.know(life, r.state)
	unserved := e.unserved(state.ClientsGone(e.wanted, r.state))
	if r.restore {
		e.want(r.state)
		e.warn()
		err := e.restore(r.ctx)
		e.drainRest(r.ctx)
		e.finishRemovals(r.ctx, r.state, unserved)
		return err
	}
	within := e.withoutUnrestored(r.state)
	if err := e.apply(r.ctx, life, within, r.state); err != nil {
		return err
	}
	e.drainRest(r.ctx)
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

// heard handles a message that is not an answer to a call.
func (e *Engine) heard(w *workerClient, m ipc.Message) {
	e.presence.heard(w, m)
	if m.Line != "" {
		e.config.Worker.Line(m.Line)
	}
	if m.Notice != nil {
		e.deps.Log.Error("the worker can't use a changed file", logkey.Tag, m.Notice.Tag, logkey.Error, m.Notice.Message)
		e.deps.Failed(Failure{Notice: true, Fault: fault.OnHost(m.Notice.Tag, "%s", m.Notice.Message)})
	}
}

// workerEnded handles the end of the worker that serves. It starts the next worker: at once
// the first time, and after a wait that doubles if workers keep ending.
func (e *Engine) workerEnded(ctx context.Context) {
	dead := e.worker
	<-dead.heardAll
	e.presence.workerEnded(dead)
	wait := e.backoff.Next(time.Since(dead.started))
	e.died(time.Now().Add(wait))
	reason, suspect := e.whyEnded(dead)
	e.deps.Log.Error("the worker ended; starting it again", logkey.PID, dead.process.PID(), logkey.Reason, reason, logkey.NextIn, wait)
	// The text has no pid and no time, so that the same failure always has the same text.
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
	if suspect && e.deps.Unfit != nil && e.blamesBuild(dead) {
		e.deps.Unfit(reason)
	}
}

// whyEnded returns why a worker ended, with the message of its panic if there is one.
// suspect means that the worker's configuration may be the reason.
func (e *Engine) whyEnded(dead *workerClient) (reason string, suspect bool) {
	reason = "exit status 0"
	if err := dead.process.Err(); err != nil {
		reason = err.Error()
	}
	words, err := keepCrash(dead.crash)
	if err != nil {
		e.deps.Log.Warn("keep the crash output", logkey.Error, err)
	}
	if hang, ok := dead.hang.Load().(error); ok {
		return fmt.Sprintf("it was killed because it hung: %v", hang), true
	}
	if words != "" {
		return reason + ": " + words, true
	}
	return reason, !supervise.Killed(dead.process.Err())
}

// retry tries to reach the wanted state after a crash or a partial restore.
func (e *Engine) retry(ctx context.Context) {
	e.tried()
	err := e.restore(ctx)
	e.finishRemovals(ctx, e.wanted, nil)
	if err != nil {
		e.deps.Log.Error("restore the last good state", logkey.Error, err)
		if e.retryAt.IsZero() {
			e.tryAgain(time.Now().Add(e.backoff.Next(0)))
		}
	}
}

func (e *Engine) stop() {
	var stopping sync.WaitGroup
	for _, w := range e.liveWorkers() {
		stopping.Go(func() {
			w.stop(stopGrace)
			<-w.heardAll
			e.presence.workerEnded(w)
			w.forgetCrash()
		})
	}
	stopping.Wait()
	e.progress = progress{wanted: e.wanted}
	e.publish()
}

// leave disconnects from all workers. They serve on, and the next daemon adopts them.
func (e *Engine) leave() {
	for _, w := range e.liveWorkers() {
		w.leave()
		<-w.heardAll
		e.deps.Log.Info("the worker serves on, and the next daemon adopts it", logkey.PID, w.process.PID(), logkey.For, time.Duration(e.orphanTimeout.Load()))
	}
}
