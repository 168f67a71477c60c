package telemt

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/filewatch"
	"nodeagent/internal/logkey"
	"nodeagent/telemt/api"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// Config says how the Engine runs telemt. A duration of zero means its default.
type Config struct {
	// Binary is telemt's path, or a name to look for in PATH.
	Binary string
	// StateDir is an absolute path. The Engine has a folder for each inbound in it, and
	// removes every other folder there.
	StateDir string
	// DrainTimeout is how long open sessions go on after a reload of telemt; default
	// 30 s. What they move in this time is not counted, because telemt shows only the
	// counters of the new generation.
	DrainTimeout time.Duration
	// UpgradeWithin is how long a restart into a newly installed telemt waits for a
	// moment without open sessions; default 1 h.
	UpgradeWithin time.Duration
	// StartTimeout limits a start; default 60 s. Before telemt listens it pings
	// Telegram's data centres, which takes half a minute if none answers.
	StartTimeout time.Duration
	// CountersEpoch identifies the counters that Deps.Count adds to.
	CountersEpoch string
	// MaxSilence is how long the metrics of a running telemt may fail to answer before
	// it is killed and started again; default 30 s.
	MaxSilence time.Duration
}

const (
	defaultDrain   = 30 * time.Second
	defaultUpgrade = time.Hour
	defaultStart   = 60 * time.Second
	defaultSilence = 30 * time.Second
)

// Deps are what the Engine reports to. The functions are called on the keepers'
// goroutines, several at once for different inbounds. They must return soon and must not
// call the Engine.
type Deps struct {
	Log *slog.Logger
	// Count adds bytes to a client's slot.
	Count func(slot uint32, up, down uint64)
	// Octets returns what a slot has in each direction. With it, telemts outlive the daemon where
	// Run's context ends with supervise.ErrLeave, or where the daemon dies, and the next one goes
	// on with them. Nil for telemts that end with the daemon.
	Octets func(slot uint32) (up, down uint64)
	// Counted returns the bytes that a slot counts, up as Grant counts them.
	Counted func(slot uint32) uint64
	// Presence reports that a client is online or offline.
	Presence func(Presence)
	// SlotsClosed reports slots of removed clients. Nothing is counted to them any more.
	SlotsClosed func(slots []uint32)
	// Failed reports an inbound that has failed and that no Apply reports.
	Failed func(service.Failure)
	// Noted reports what the operator should know although all inbounds are served.
	Noted func(error)
}

func (d Deps) octets(slot uint32) api.Octets {
	up, down := d.Octets(slot)
	return api.Octets{Up: up, Down: down}
}

// Engine keeps one telemt process running for each MTProto inbound. See the package's
// comment for its goroutines. New makes it; its other methods work while Run runs.
type Engine struct {
	config   Config // but for what tuning has
	tuning   *tuning
	deps     Deps
	binary   *process.Binary
	requests chan request
	desired  map[string]service.Desired // by tag; belongs to Run's goroutine
	// left are the telemts of the daemon before, by folder, until the first request; it belongs
	// to Run's goroutine.
	left map[process.Folder]int

	// mu guards keepers. A keeper's own mu is never taken while mu is held.
	mu sync.Mutex
	// keepers are by tag. They change only in a call that Run's goroutine waits for.
	keepers    map[string]*keeper
	goroutines sync.WaitGroup // that end with Run's context
}

// request is a call of Apply or Restore, for Run's goroutine.
type request struct {
	ctx      context.Context
	service  service.Service
	restore  bool
	answered chan error // has room for the answer
}

// New makes an Engine. It starts nothing.
func New(config Config, deps Deps) (*Engine, error) {
	if config.Binary == "" || !filepath.IsAbs(config.StateDir) {
		return nil, fmt.Errorf("make the telemt engine: binary is %q and state folder %q; want a program and an absolute path", config.Binary, config.StateDir)
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&config.DrainTimeout, defaultDrain}, {&config.UpgradeWithin, defaultUpgrade}, {&config.StartTimeout, defaultStart}, {&config.MaxSilence, defaultSilence}} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	e := &Engine{config: config, tuning: &tuning{}, deps: deps, binary: process.NewBinary(config.Binary), requests: make(chan request), keepers: map[string]*keeper{}}
	e.tuning.set(config)
	return e, nil
}

// tuning has what of a Config may change while the engine runs.
type tuning struct{ drain, upgradeWithin atomic.Int64 } // of type time.Duration

func (t *tuning) set(c Config) {
	t.drain.Store(int64(cmp.Or(c.DrainTimeout, defaultDrain)))
	t.upgradeWithin.Store(int64(cmp.Or(c.UpgradeWithin, defaultUpgrade)))
}

func (t *tuning) drainTimeout() time.Duration { return time.Duration(t.drain.Load()) }

// Tune changes Binary, DrainTimeout and UpgradeWithin while the engine runs; the rest of c is not
// used. Where Binary is another file, each telemt is replaced as after an upgrade of its file.
func (e *Engine) Tune(c Config) {
	e.tuning.set(c)
	e.binary.SetName(c.Binary)
}

// Apply brings all inbounds to the Service. If one of them fails, all are brought back to
// what ran before, and the error has an *service.ApplyError for each of them. Two kinds of
// inbound are no error: those that did not run before either, which are reported to
// Deps.Failed, and new ones while no telemt is installed (InboundStatus.Missing), which start
// as soon as there is one. ctx ends the attempt, not the way back.
func (e *Engine) Apply(ctx context.Context, s service.Service) error {
	return e.send(request{ctx: ctx, service: s})
}

// Restore starts all inbounds of the Service and does not wait for them. It is for the
// last good configuration when the daemon starts. An inbound that can't be started is
// reported to Deps.Failed and tried again.
func (e *Engine) Restore(ctx context.Context, s service.Service) error {
	return e.send(request{ctx: ctx, service: s, restore: true})
}

func (e *Engine) send(r request) error {
	r.answered = make(chan error, 1)
	select {
	case e.requests <- r:
		return <-r.answered
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// Run serves until ctx ends. Then it stops every telemt, reads its counters a last time,
// and returns nil. Where the cause is supervise.ErrLeave, it leaves the telemts to the next daemon.
func (e *Engine) Run(ctx context.Context) error {
	watch, err := filewatch.New()
	if err != nil {
		e.deps.Log.Error("telemt's files are looked at once a minute only", logkey.Error, err)
	}
	var watching sync.WaitGroup
	watching.Go(func() { watch.Run(ctx) })
	watched := map[string]bool{}
	if e.left, err = process.Running(e.config.StateDir); err != nil {
		e.deps.Log.Error("look for telemts of the daemon before", logkey.Error, err)
	}
	for {
		e.watchFiles(ctx, watch, watched)
		select {
		case <-ctx.Done():
			watching.Wait() // its calls start goroutines
			e.goroutines.Wait()
			return nil
		case r := <-e.requests:
			e.endLeft(r)
			if r.restore {
				r.answered <- e.restore(ctx, r)
			} else {
				r.answered <- e.apply(ctx, r)
			}
		}
	}
}

// Version returns the version of the installed telemt, or "" if none was found yet.
func (e *Engine) Version() string { return e.binary.Version() }

// Status returns a snapshot. The inbounds are in the order of their tags.
func (e *Engine) Status() Status {
	status := Status{Inbounds: []InboundStatus{}}
	for _, k := range e.allKeepers() {
		status.Inbounds = append(status.Inbounds, k.snapshot())
	}
	slices.SortFunc(status.Inbounds, func(a, b InboundStatus) int { return strings.Compare(a.Tag, b.Tag) })
	status.Warnings = e.warnings(status.Inbounds)
	return status
}

// warnings returns sentences about what works and is not wise.
func (e *Engine) warnings(inbounds []InboundStatus) (warnings []string) {
	if len(inbounds) == 0 {
		return nil
	}
	versions := map[string]bool{e.Version(): true} // the installed one, which runs after the next restart
	for _, in := range inbounds {
		versions[in.Version] = true
		if !in.StaleUntil.IsZero() {
			warnings = append(warnings, fmt.Sprintf("mtproto inbound %q: telemt %s takes the last change only with a restart, which comes as soon as no session is open, at the latest at %s", in.Tag, in.Version, in.StaleUntil.UTC().Format(time.RFC3339)))
		}
		if in.BuiltInDomain {
			warnings = append(warnings, fmt.Sprintf("mtproto inbound %q has modes.tls and no tlsDomains, so that it imitates the site that is built into telemt: set tlsDomains", in.Tag))
		}
	}
	for _, version := range slices.Sorted(maps.Keys(versions)) {
		if text := process.ReleaseWarning(version); text != "" {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

func (e *Engine) allKeepers() []*keeper {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.keepers))
}

// Collect reads the counters and sessions of all inbounds and reports what is new to Deps.
// It returns when all are read or ctx ends. A reading that has begun goes on after that.
func (e *Engine) Collect(ctx context.Context) {
	keepers := e.allKeepers()
	read := make(chan struct{}, len(keepers))
	for _, k := range keepers {
		go func() {
			_ = k.do(ctx, func() error { return k.collect(ctx) })
			read <- struct{}{}
		}()
	}
	for range keepers {
		select {
		case <-read:
		case <-ctx.Done():
			return
		}
	}
}

// keeper returns the tag's keeper. If there is none, it makes one, which runs until life
// ends or it is dropped.
func (e *Engine) keeper(life context.Context, tag string) *keeper {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.keepers[tag]
	if k == nil {
		k = newKeeper(life, tag, e.config, e.tuning, e.deps, e.binary)
		e.keepers[tag] = k
		e.goroutines.Go(k.run)
	}
	return k
}

// restore tells every inbound's keeper to start it.
func (e *Engine) restore(life context.Context, r request) error {
	e.removeOldFolders(r.service)
	e.desired = r.service.ByTag()
	defer func() { e.left = nil }()
	return inParallel(e.desired, func(tag string, desired service.Desired) error {
		k := e.keeper(life, tag)
		left := e.left[k.folder]
		return k.do(r.ctx, func() error { return k.restore(desired, left) })
	})
}

// endLeft ends the telemts of the daemon before that the first request does not go on with.
func (e *Engine) endLeft(r request) {
	goesOn := map[process.Folder]bool{}
	if r.restore && e.deps.Octets != nil {
		for tag := range r.service.ByTag() {
			goesOn[process.FolderOf(e.config.StateDir, tag)] = true
		}
	}
	var ending sync.WaitGroup
	for folder, pid := range e.left {
		if !goesOn[folder] {
			e.deps.Log.Info("a telemt of the daemon before is ended", logkey.PID, pid, logkey.File, string(folder))
			ending.Go(func() { process.End(pid, folder) })
			delete(e.left, folder)
		}
	}
	ending.Wait()
}

// removeOldFolders removes the folders of inbounds that the Service does not have.
func (e *Engine) removeOldFolders(s service.Service) {
	entries, err := os.ReadDir(e.config.StateDir)
	if err != nil {
		return // there is no state folder yet
	}
	keep := map[string]bool{}
	for tag := range s.ByTag() {
		keep[filepath.Base(string(process.FolderOf(e.config.StateDir, tag)))] = true
	}
	for _, entry := range entries {
		if !keep[entry.Name()] {
			_ = os.RemoveAll(filepath.Join(e.config.StateDir, entry.Name()))
		}
	}
}
