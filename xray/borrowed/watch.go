package borrowed

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"nodeagent/xray/state"
)

const (
	// goodFor is how long a site that fits is not looked at again, and badFor one that does not.
	goodFor = 10 * time.Minute
	badFor  = time.Minute
	// probeTimeout bounds one look at one site.
	probeTimeout = 10 * time.Second
	// atOnce is how many sites are looked at at a time.
	atOnce = 4
)

// Watch looks at sites when it is told of them, and from time to time. Run owns the looks; any
// goroutine may call the other methods. mu guards the other members, and no other lock is
// taken while it is held.
type Watch struct {
	probe   func(context.Context, Site) error
	wake    chan struct{}
	changed chan struct{}

	mu    sync.Mutex
	sites map[string]*watched // by the inbound's tag
}

// watched is a site and what the last look at it has found.
type watched struct {
	Site
	problem string // empty for none
	due     time.Time
}

// NewWatch makes a Watch. probe is Probe.
func NewWatch(probe func(context.Context, Site) error) *Watch {
	return &Watch{probe: probe, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), sites: map[string]*watched{}}
}

// Want makes the sites of the state the ones that are looked at. It returns at once.
func (w *Watch) Want(s state.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := map[string]*watched{}
	for tag, in := range s.Inbounds {
		site, borrows := Of(in)
		if !borrows {
			continue
		}
		if before := w.sites[tag]; before != nil && before.equal(site) {
			wanted[tag] = before
			continue
		}
		wanted[tag] = &watched{Site: site}
		signal(w.wake)
	}
	w.sites = wanted
}

// Problems returns what is wrong with the sites that do not fit, by the inbounds' tags.
func (w *Watch) Problems() map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	problems := map[string]string{}
	for tag, site := range w.sites {
		if site.problem != "" {
			problems[tag] = "it borrows the site " + site.Address + ": " + site.problem
		}
	}
	return problems
}

// Warnings returns a sentence for each site that does not fit, sorted by the inbounds' tags.
func (w *Watch) Warnings() (warnings []string) {
	problems := w.Problems()
	for _, tag := range slices.Sorted(maps.Keys(problems)) {
		warnings = append(warnings, fmt.Sprintf("inbound %q: %s", tag, problems[tag]))
	}
	return warnings
}

// Changed has a value after Warnings may have changed by a look.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Run looks at the sites until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	for {
		next := w.lookAtDue(ctx)
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-time.After(next):
		}
	}
}

// lookAtDue looks at the sites whose time has come, and returns after how long it is to be
// called again.
func (w *Watch) lookAtDue(ctx context.Context) time.Duration {
	w.mu.Lock()
	var due []*watched
	for _, site := range w.sites {
		if !site.due.After(time.Now()) {
			due = append(due, site)
		}
	}
	w.mu.Unlock()
	room := make(chan struct{}, atOnce)
	var looking sync.WaitGroup
	for _, site := range due {
		room <- struct{}{}
		looking.Go(func() {
			defer func() { <-room }()
			w.look(ctx, site)
		})
	}
	looking.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	next := time.Hour
	for _, site := range w.sites {
		next = min(next, time.Until(site.due))
	}
	return max(next, 0)
}

func (w *Watch) look(ctx context.Context, site *watched) {
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := w.probe(within, site.Site)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before := site.problem
	site.problem, site.due = "", time.Now().Add(goodFor)
	if err != nil {
		site.problem, site.due = err.Error(), time.Now().Add(badFor)
	}
	if site.problem != before {
		signal(w.changed)
	}
}

// signal fills a channel of one slot, if it is empty.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}
