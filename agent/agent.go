package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"nodeagent/agent/delivery"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/pulse"
	"nodeagent/internal/supervise"
	"nodeagent/store"
	"nodeagent/xray"
)

// Config is what an operator may set. A zero duration means the default.
type Config struct {
	HeartbeatInterval time.Duration // default 10 s
	HeartbeatWait     time.Duration // how long Core may hold a heartbeat; default 25 s
	// CollectInterval is the time between two reads of the counters, at most a minute;
	// default 5 s. A power cut loses what was counted since the last read.
	CollectInterval time.Duration
	// SessionLinger is the time from the end of a client's last stream until Core is told
	// that the client is offline; default 30 s.
	SessionLinger time.Duration
	// ShutdownDelivery bounds how long what waits is sent before the engines end, and how
	// long the last rows are sent afterwards; default 2 s each. A Core that gives no answer
	// is waited for a second, and only once.
	ShutdownDelivery time.Duration
	IP               string // the node's address that heartbeats name; empty where it is not known
	// StepLimit is how long one step of an apply can take at most: an apply that takes longer
	// hangs. Default 15 min.
	StepLimit time.Duration
}

const (
	defaultHeartbeat = 10 * time.Second
	defaultWait      = 25 * time.Second
	defaultCollect   = 5 * time.Second
	defaultLinger    = 30 * time.Second
	defaultDelivery  = 2 * time.Second
	defaultStepLimit = 15 * time.Minute
	// requestLimit is how long a request to Core, or a read of the counters with its commit to
	// the disk, can take at most: it hangs where it takes longer. coreclient ends a request after
	// a minute, and a disk that is slow beyond this helps nobody.
	requestLimit = 5 * time.Minute
	// lastAnswer bounds how long Core may take for an answer while the daemon stops. What
	// it does not take is on the disk, and the next start delivers it.
	lastAnswer = time.Second
)

func (c *Config) setDefaults() error {
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"heartbeat interval", &c.HeartbeatInterval, defaultHeartbeat},
		{"heartbeat wait", &c.HeartbeatWait, defaultWait},
		{"collect interval", &c.CollectInterval, defaultCollect},
		{"session linger", &c.SessionLinger, defaultLinger},
		{"shutdown delivery", &c.ShutdownDelivery, defaultDelivery},
		{"step limit", &c.StepLimit, defaultStepLimit},
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s is %s, want a positive duration", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.CollectInterval > time.Minute {
		return fmt.Errorf("collect interval is %s, want at most a minute: rows are per minute", c.CollectInterval)
	}
	return nil
}

// Deps has the parts that an agent needs. Build, Ahead, Adopted, CoreChanged, CoreID, Jitter, Ready and
// MemoryFreed may be missing; all others are required.
type Deps struct {
	Log      *slog.Logger
	Core     Core
	Store    Store
	Counters Counters
	Inbox    *Inbox // the one that Xray and MTProto report to
	Xray     Xray
	MTProto  MTProto
	// Build is another text for each build of node-agent: only the build that has parsed a
	// configuration reads the result at the next start. Empty for one that keeps no results.
	Build string
	// Ahead is what ReadAhead has begun to read; nil for nothing.
	Ahead *Ahead
	// Adopted is what Xray took over from the daemon before; zero for nothing.
	Adopted xray.Adopted
	// CoreChanged has a value where Core is worth asking at once; it may be nil.
	CoreChanged <-chan struct{}
	// CoreID returns which Core the node belongs to, another text for another Core. Nil
	// stands for a Core that is always the same.
	CoreID func() string
	// Jitter varies a wait, so that not all nodes ask Core at the same time. Nil stands
	// for ten per cent more or less.
	Jitter func(time.Duration) time.Duration
	// Ready is called once, when as much of the last good configuration is served as can
	// be, or after five seconds. It may be nil.
	Ready func()
	// MemoryFreed is called after the start, and each time after much memory was given back to the host.
	// It may be nil.
	MemoryFreed func()
}

// Agent decides for the daemon. Make it with New, and call Run once.
//
// Run owns these goroutines. Each of them is the only one that does its work:
//
//	syncLoop        sends heartbeats, fetches configurations, applies them
//	rollBackLoop    returns to the previous configuration where the worker keeps crashing
//	collectLoop     reads the counters, gives back slots of removed clients
//	compactLoop     merges what waits long in the outbox
//	grantLoop       makes the rows of clients that are ended by a grant
//	noticeLoop      handles what the engines report by themselves
//	sessions.run    turns presence into online and offline events
//	courier.Run     sends the outbox, one goroutine for each kind of batch
//	reporter.Run    writes reports into the outbox
//	statusLoop      tells Core how the inbounds are, where Core wants to know
//	restore         brings the engines to the last good configuration, then ends
//	xray.Run, mtproto.Run  the engines, which outlive the others
//
// Lock order: a function that also locks handling, locks applying first. The locks of crashes,
// syncState, Inbox, the delivery package and the store are taken last; none of their
// holders takes another lock. Functions that are called with applying held end in Locked.
//
// After a crash of the daemon, the store has the configuration and how far each counter is
// accounted, the counters file has every byte, and the store's outbox has what Core has not
// acknowledged. Lost are reports that were not written yet, and the presence that was not
// read yet: the next daemon tells Core that every client is offline which Core thinks is
// online.
type Agent struct {
	intervals sync.RWMutex // guards the intervals in config, which SetIntervals changes
	config    Config

	pulse    pulse.Monitor // of the loops; it has a lock of its own
	log      *slog.Logger
	core     Core
	store    Store
	counters Counters
	changed  <-chan struct{} // see Deps.CoreChanged
	jitter   func(time.Duration) time.Duration
	ready    func()
	// memoryFreed is Deps.MemoryFreed.
	memoryFreed func()
	coreID      func() string
	adopted     xray.Adopted
	inbox       *Inbox
	xray        Xray
	mtproto     MTProto

	link     *delivery.Link
	reporter *delivery.Reporter
	sessions *sessionTracker
	courier  *delivery.Courier

	// applying is held while slots get another owner or lose theirs: for a whole apply,
	// rollback or restore, and while slots are given back. It guards
	// what follows.
	applying sync.Mutex
	inUse    slotSet // slots that an engine counts to, or may count to
	running  desired // the configuration that the engines have
	settles  bool    // running.settles; false where running is not a whole document
	held     *held   // the document of running; nil until the next delta needs it

	build  string          // see Deps.Build
	ahead  *Ahead          // see Deps.Ahead; nil once restore has begun
	parsed store.ParsedKey // of what the store keeps; zero where that is not known
	// parsedFrom is how many clients a configuration has at least whose parsed form is kept.
	parsedFrom int

	// compareFrom is the size in bytes from which on a whole document is compared with the one that
	// runs.
	compareFrom int
	// mergeFrom is mergeAfter.
	mergeFrom int

	// handling is held while notices from the inbox are handled, so that they keep their
	// order. If you also lock applying, take applying first.
	handling sync.Mutex

	// otherMachineFetch is when syncLoop fetched the configuration last on a machine that is
	// not the node's.
	otherMachineFetch time.Time

	grants   grantWatch // has a lock of its own
	crashes  *crashes   // has a lock of its own
	troubles *troubles  // has a lock of its own
	sync     syncState  // has a lock of its own
}

// New makes an agent, and starts nothing. It returns an error for a setting that makes no
// sense.
func New(config Config, deps Deps) (*Agent, error) {
	if err := config.setDefaults(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if deps.Jitter == nil {
		deps.Jitter = tenPercent
	}
	if deps.Ready == nil {
		deps.Ready = func() {}
	}
	if deps.MemoryFreed == nil {
		deps.MemoryFreed = func() {}
	}
	if deps.CoreID == nil {
		deps.CoreID = func() string { return "" }
	}
	a := &Agent{
		coreID: deps.CoreID, adopted: deps.Adopted, config: config, log: deps.Log, core: deps.Core, store: deps.Store, counters: deps.Counters,
		inbox: deps.Inbox, xray: deps.Xray, mtproto: deps.MTProto, changed: deps.CoreChanged, jitter: deps.Jitter, ready: deps.Ready, memoryFreed: deps.MemoryFreed,
		crashes: newCrashes(), troubles: newTroubles(), compareFrom: largeBody, mergeFrom: mergeAfter,
		build: deps.Build, ahead: deps.Ahead, parsedFrom: manyClients,
	}
	a.link = delivery.NewLink()
	a.courier = delivery.NewCourier(delivery.Deps{
		Log: deps.Log, Core: deps.Core, Outbox: deps.Store, Link: a.link, Jitter: deps.Jitter, Refused: a.batchRefused,
	})
	a.reporter = delivery.NewReporter(deps.Store, a.courier.Wake, deps.Log)
	a.sessions = newSessionTracker(deps.Inbox, deps.Store, deps.Store, config.SessionLinger, a.courier.Wake)
	return a, nil
}

// SetIntervals changes HeartbeatInterval, CollectInterval, SessionLinger and StepLimit while the
// agent runs; the rest of c is not used. Each loop follows at its next round. It returns an error, and changes
// nothing, for an interval that makes no sense.
func (a *Agent) SetIntervals(c Config) error {
	if err := c.setDefaults(); err != nil {
		return err
	}
	a.intervals.Lock()
	a.config.HeartbeatInterval, a.config.CollectInterval, a.config.StepLimit = c.HeartbeatInterval, c.CollectInterval, c.StepLimit
	a.intervals.Unlock()
	a.sessions.linger.Store(int64(c.SessionLinger))
	return nil
}

// live returns the configuration as it is now.
func (a *Agent) live() Config {
	a.intervals.RLock()
	defer a.intervals.RUnlock()
	return a.config
}

// Stuck says which of the main loops hangs, and over what; it is empty where all go on. A loop that
// is busy does not hang.
func (a *Agent) Stuck() string { return a.pulse.Stuck() }

// Run serves until ctx ends. Then it stops the engines, accounts their last bytes, and
// delivers them, unless Core does not answer. Where the cause of ctx's end is supervise.ErrLeave,
// the engines leave to the next daemon what serves clients, and that one delivers. It returns an
// error where the last bytes or events could not be stored.
func (a *Agent) Run(ctx context.Context) error {
	a.boot()
	// The engines outlive ctx: their last bytes are accounted after they have ended.
	engineCtx, stopEngines := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopEngines(nil)
	var engines, loops sync.WaitGroup
	loops.Go(func() { a.noticeLoop(ctx) })
	engines.Go(func() { _ = a.xray.Run(engineCtx) })
	engines.Go(func() { _ = a.mtproto.Run(engineCtx) })

	a.startRestoring(ctx, &loops)
	a.ready()
	loops.Go(func() { a.syncLoop(ctx) })
	loops.Go(func() { a.rollBackLoop(ctx) })
	loops.Go(func() { a.collectLoop(ctx) })
	loops.Go(func() { a.compactLoop(ctx) })
	loops.Go(func() { a.grantLoop(ctx) })
	loops.Go(func() { a.sessions.run(ctx) })
	loops.Go(func() { a.courier.Run(ctx) })
	loops.Go(func() { a.reporter.Run(ctx) })
	loops.Go(func() { a.statusLoop(ctx) })
	<-ctx.Done()
	loops.Wait()

	leaves := errors.Is(context.Cause(ctx), supervise.ErrLeave)
	if leaves {
		a.log.Info("ending; what serves clients goes on, for the next daemon")
	} else {
		a.log.Info("stopping")
	}
	// Here and again in finish: the daemon may be killed while the engines end, and most
	// bytes are accounted by then.
	a.collect(engineCtx)
	answers := false
	if !leaves {
		answers = a.deliverLast(engineCtx) // what waits already, before the ports close
	}
	stopEngines(context.Cause(ctx))
	engines.Wait()
	if leaves {
		return a.suspend()
	}
	return a.finish(answers)
}

// boot accounts what was counted after the last read of the previous daemon. It ends that daemon's
// sessions, except those on adopted workers and on telemts (see sessionTracker.takeOver). No engine runs
// yet; adopted workers count. An error (a full disk) stops nothing: the counters keep their values, and
// the next read accounts them.
func (a *Agent) boot() {
	now := time.Now()
	if err := errors.Join(
		a.counters.Grow(a.store.SlotCount()),
		a.store.Flush(now, a.counters),
		a.sessions.takeOver(now, a.adopted),
	); err != nil {
		a.troubles.note(troubleAccount, err)
		a.log.Error("account what the previous run left; trying again at the next read", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, "account what the previous run left: "+err.Error(), nil)
	}
	a.reportDamage()
}

// deliverLast delivers what is in the outbox, and tells whether Core took it: also where
// there was nothing to deliver. It returns at once where Core is known to be away.
func (a *Agent) deliverLast(ctx context.Context) (coreAnswers bool) {
	if _, away := a.troubles.has(troubleHeartbeat); away {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, a.config.ShutdownDelivery)
	defer cancel()
	return a.courier.Drain(ctx, lastAnswer)
}

// finish accounts what the engines left, and delivers it where Core answers. The engines have
// ended, and with them the ports are closed.
func (a *Agent) finish(coreAnswers bool) error {
	now := time.Now()
	a.handleNotices()
	a.settleStore(now)
	a.keepParsed()
	a.keepHeld()
	err := errors.Join(a.sessions.finish(now), a.store.Flush(now, a.counters), a.reporter.Write())
	if coreAnswers {
		a.deliverLast(context.Background())
	}
	return err
}

// suspend stores what the engines left, for the next daemon.
func (a *Agent) suspend() error {
	now := time.Now()
	a.handleNotices()
	a.settleStore(now)
	a.keepParsed()
	a.keepHeld()
	return errors.Join(a.sessions.suspend(now), a.store.Collect(now, a.counters), a.reporter.Write())
}

// tenPercent varies d by up to ten per cent.
func tenPercent(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}
