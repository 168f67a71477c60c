package telemt

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// Config says how the Engine runs telemt. Zero durations mean the defaults.
type Config struct {
	// Binary is telemt's path, or a name that is looked for in PATH.
	Binary string
	// StateDir has a folder for each inbound.
	StateDir string
	// DrainTimeout is how long sessions go on through a change that needs a new
	// generation of telemt; default 30 s. What they move meanwhile is counted by
	// nobody: telemt shows the new generation's counters alone.
	DrainTimeout time.Duration
	// UpgradeWithin is how long a telemt that was replaced on the disk waits for
	// a moment without sessions; default an hour.
	UpgradeWithin time.Duration
	// StartTimeout bounds a start; default 60 s. telemt pings Telegram's centres
	// before it listens, for half a minute where none answers.
	StartTimeout time.Duration
	// MaxSilence is how long a telemt that runs may leave its counters' reader
	// without an answer before it is taken for one that hangs; default 30 s.
	MaxSilence time.Duration
}

const (
	defaultDrain   = 30 * time.Second
	defaultUpgrade = time.Hour
	defaultStart   = 60 * time.Second
	defaultSilence = 30 * time.Second
)

// Deps is what the Engine tells to. The functions must return at once.
type Deps struct {
	Log *slog.Logger
	// Count adds bytes to a client's slot.
	Count func(slot uint32, up, down uint64)
	// Presence tells who comes and goes.
	Presence func(Presence)
	// SlotsClosed tells slots of removed clients for whom nothing more can come.
	SlotsClosed func(slots []uint32)
	// Failed tells what broke without anybody having asked for something, and
	// what is not served though all else is.
	Failed func(service.Failure)
	// Noted tells what somebody should know and what harms nobody.
	Noted func(error)
}

// Engine keeps one telemt running for each MTProto inbound. Make it with New, and
// Run it; everything else waits until it runs.
type Engine struct {
	config   Config
	deps     Deps
	binary   *process.Binary
	requests chan request
	desired  map[string]service.Desired // by tag; Run's goroutine's own

	mu         sync.Mutex
	keepers    map[string]*keeper // by tag; Run's goroutine alone changes it
	goroutines sync.WaitGroup
}

type request struct {
	ctx      context.Context
	service  service.Service
	restore  bool
	answered chan error
}

// New makes an Engine that runs nothing until Run.
func New(config Config, deps Deps) (*Engine, error) {
	if config.Binary == "" || !filepath.IsAbs(config.StateDir) {
		return nil, fmt.Errorf("telemt engine: want a binary and an absolute state folder, got %q and %q", config.Binary, config.StateDir)
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&config.DrainTimeout, defaultDrain}, {&config.UpgradeWithin, defaultUpgrade}, {&config.StartTimeout, defaultStart}, {&config.MaxSilence, defaultSilence}} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	return &Engine{config: config, deps: deps, binary: &process.Binary{Name: config.Binary}, requests: make(chan request), keepers: map[string]*keeper{}}, nil
}

// Apply reaches the service, or leaves everything as it was and tells why: an
// *ApplyError. An inbound that can't be served for a missing telemt, or that
// failed before, is no such reason; Failed is told of it. One call at a time.
func (e *Engine) Apply(ctx context.Context, s service.Service) error {
	return e.send(request{ctx: ctx, service: s})
}

// Restore begins to reach the service, and does not wait for that; what fails is
// told to Failed and tried again. It is for the last good configuration at the
// start.
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

// Run serves until ctx ends, and stops every telemt then, its counters read to
// the end. It returns no error: a telemt that dies is started again.
func (e *Engine) Run(ctx context.Context) error {
	watch, err := newWatch(e.deps.Log)
	if err != nil {
		// Without it a drift is mended at the next change, and a new telemt is
		// found when the old one ends.
		e.deps.Log.Error("watch telemt's files", "error", err)
	}
	defer watch.close()
	for {
		watch.folders(e.binary.WatchDir(), e.all())
		select {
		case <-ctx.Done():
			e.goroutines.Wait()
			return nil
		case r := <-e.requests:
			if r.restore {
				r.answered <- e.restore(ctx, r)
			} else {
				r.answered <- e.apply(ctx, r)
			}
		case changed := <-watch.changed:
			e.goroutines.Go(func() { e.notify(ctx, changed) })
		}
	}
}

// Version is that of the telemt that inbounds are served with; empty where none was
// looked for yet, or found.
func (e *Engine) Version() string { return e.binary.Version() }

func (e *Engine) all() []*keeper {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.keepers))
}

// Collect reads every inbound's counters and sessions, and hands on what they
// gained. It returns when all is read or ctx ends; what takes longer goes on.
func (e *Engine) Collect(ctx context.Context) {
	keepers := e.all()
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

// keeperOf returns the tag's keeper, and makes it where there is none.
func (e *Engine) keeperOf(life context.Context, tag string) *keeper {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := e.keepers[tag]
	if k == nil {
		k = newKeeper(life, tag, e.config, e.deps, e.binary)
		e.keepers[tag] = k
		e.goroutines.Go(k.run)
	}
	return k
}

// restore starts all inbounds, each in its own time.
func (e *Engine) restore(life context.Context, r request) error {
	e.removeOldFolders(r.service)
	e.desired = r.service.ByTag()
	return inParallel(e.desired, func(tag string, want service.Desired) error {
		k := e.keeperOf(life, tag)
		return k.do(r.ctx, func() error { return k.restore(want) })
	})
}

// removeOldFolders removes the folders of inbounds that are no more.
func (e *Engine) removeOldFolders(s service.Service) {
	entries, err := os.ReadDir(e.config.StateDir)
	if err != nil {
		return // there is none yet
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

// notify tells the keepers that something in a folder is not what it was.
func (e *Engine) notify(ctx context.Context, folder string) {
	isBinary := folder == e.binary.WatchDir()
	for _, k := range e.all() {
		switch {
		case isBinary:
			_ = k.do(ctx, k.binaryChanged)
		case folder == string(k.folder):
			_ = k.do(ctx, func() error { k.repairFile(); return nil })
		}
	}
}
