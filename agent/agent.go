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
)

// Config is what an operator may set. Zero values mean the defaults.
type Config struct {
	HeartbeatInterval time.Duration // default 10 s
	HeartbeatWait     time.Duration // how long Core may hold a heartbeat; default 25 s
	CollectInterval   time.Duration // default 5 s; also what a power cut can lose
	SessionLinger     time.Duration // from a client's last stream to its offline; default 30 s
	ShutdownDelivery  time.Duration // how long the last rows are tried at the end; default 4 s
	IP                string        // what heartbeats say, where it is known
}

const (
	defaultHeartbeat = 10 * time.Second
	defaultWait      = 25 * time.Second
	defaultCollect   = 5 * time.Second
	defaultLinger    = 30 * time.Second
	defaultDelivery  = 4 * time.Second
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
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s is %s, want more than nothing", d.name, *d.value)
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

// Deps is what the agent works with.
type Deps struct {
	Log      *slog.Logger
	Core     Core
	Store    Store
	Counters Counters
	Inbox    *Inbox // the one that the engines write to
	Xray     Xray
	MTProto  MTProto
	// Jitter spreads a wait, so that nodes do not come all at once. Nil for
	// ten per cent either way.
	Jitter func(time.Duration) time.Duration
	// Ready is called once the last good configuration serves, or as much of
	// it as can. Nil for nothing.
	Ready func()
}

// Agent is the daemon's decisions. Make it with New and Run it.
type Agent struct {
	config   Config
	log      *slog.Logger
	core     Core
	store    Store
	counters Counters
	jitter   func(time.Duration) time.Duration
	ready    func()
	inbox    *Inbox
	xray     Xray
	mtproto  MTProto

	link     *delivery.Link
	reporter *delivery.Reporter
	sessions *sessionTracker
	courier  *delivery.Courier

	// applying is held while slots get or lose their meaning.
	applying sync.Mutex
	inUse    map[uint32]bool // slots of the running configuration
	running  desired         // what the engines were brought to last

	crashes *crashes
	sync    syncState

	handling sync.Mutex // held while notices of the inbox are handled, so that they keep their order
}

// New makes an agent that does nothing yet.
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
	a := &Agent{
		config: config, log: deps.Log, core: deps.Core, store: deps.Store, counters: deps.Counters,
		inbox: deps.Inbox, xray: deps.Xray, mtproto: deps.MTProto, jitter: deps.Jitter, ready: deps.Ready, inUse: map[uint32]bool{}, crashes: newCrashes(),
	}
	a.link = delivery.NewLink()
	a.courier = delivery.NewCourier(delivery.Deps{
		Log: deps.Log, Core: deps.Core, Outbox: deps.Store, Link: a.link, Jitter: deps.Jitter, Refused: a.batchRefused,
	})
	a.reporter = delivery.NewReporter(deps.Store, a.courier.Wake, deps.Log)
	a.sessions = newSessionTracker(deps.Inbox, deps.Store, deps.Store, config.SessionLinger, a.courier.Wake)
	return a, nil
}

// Run serves until ctx ends, then accounts the last bytes and stops the
// engines. An error means that the daemon must not go on.
func (a *Agent) Run(ctx context.Context) error {
	a.boot()
	// The engines outlive ctx: their last bytes are counted after they have ended.
	engineCtx, stopEngines := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngines()
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
	loops.Go(func() { a.sessions.run(ctx) })
	loops.Go(func() { a.courier.Run(ctx) })
	loops.Go(func() { a.reporter.Run(ctx) })
	<-ctx.Done()
	loops.Wait()

	a.log.Info("stopping")
	// Twice: should the engines take too long to end, the most is accounted.
	a.collect(engineCtx)
	stopEngines()
	engines.Wait()
	return a.finish()
}

// boot accounts what an earlier daemon left uncounted, before anything counts
// anew. What fails here (a full disk) loses nothing and stops nobody: the
// counters keep what they have, and are read again.
func (a *Agent) boot() {
	now := time.Now()
	if err := errors.Join(
		a.counters.Grow(a.store.SlotCount()),
		a.store.Flush(now, a.counters),
		a.sessions.endStale(now),
	); err != nil {
		a.log.Error("account what the run before left; trying again with the next read", logkey.Error, err)
		a.reporter.Failed(wire.CodeStoreFailed, "account what the run before left: "+err.Error(), nil)
	}
}

// finish accounts and delivers what the engines left.
func (a *Agent) finish() error {
	now := time.Now()
	a.handleNotices()
	err := errors.Join(a.sessions.finish(now), a.store.Flush(now, a.counters), a.reporter.Write())
	ctx, cancel := context.WithTimeout(context.Background(), a.config.ShutdownDelivery)
	defer cancel()
	a.courier.Drain(ctx)
	return err
}

func tenPercent(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.2*float64(d))
}
