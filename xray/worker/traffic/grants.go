package traffic

import (
	"context"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/internal/grant"
)

// grantsEvery is how often WatchGrants looks. Streams of a used-up grant end by themselves at their
// next byte; the others wait for WatchGrants.
const grantsEvery = 200 * time.Millisecond

// allowance is a person's grant with the slot that counts it. Other workers and the daemon may
// count into the slot too.
type allowance struct {
	*grant.Grant
	used *counters.Slot // nil if the counters file has no such slot: then nothing passes
}

func (r *Registry) allowanceOf(g *grant.Grant) *allowance {
	if g == nil {
		return nil
	}
	used, err := r.SlotOf(g.Slot)
	if err != nil { // the executor has refused such a client
		used = nil
	}
	return &allowance{g, used}
}

// over reports whether nothing may pass any more. It is false for nil.
func (a *allowance) over(now time.Time) bool {
	return a != nil && (a.used == nil || a.Over(a.used.Up.Load(), now))
}

// mayPass counts n bytes for the grant of the stream's client, and reports whether they may pass.
// It ends all streams of the client where they may not.
func (s *stream) mayPass(g *limitGroup, n int) bool {
	a := g.allowance.Load()
	if a == nil || n == 0 || a.used != nil && a.Spend(a.used, n) {
		return true
	}
	go g.end(a) // not here, because it ends this stream too
	return false
}

// most returns how many bytes a step of a spliced stream may take, of at most n.
func (g *limitGroup) most(n int) int {
	if a := g.allowance.Load(); a != nil && a.used != nil {
		return int(min(int64(n), max(1, a.Left(a.used))))
	}
	return n
}

// end ends the streams of the group, unless it has another allowance than a by now.
func (g *limitGroup) end(a *allowance) {
	g.mu.Lock()
	if g.allowance.Load() != a {
		g.mu.Unlock()
		return
	}
	var streams []*stream
	for _, at := range g.addresses {
		for s := range at {
			streams = append(streams, s)
		}
	}
	g.mu.Unlock()
	for _, s := range streams {
		s.kill()
	}
}

// WatchGrants ends the streams of clients whose grant is used up, here, in another worker or over
// MTProto, or has expired. It returns when ctx ends.
func (r *Registry) WatchGrants(ctx context.Context) {
	tick := time.NewTicker(grantsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for g, a := range r.over(now) {
				g.end(a)
			}
		}
	}
}

// over returns the groups whose grants are over, with these grants.
func (r *Registry) over(now time.Time) map[*limitGroup]*allowance {
	over := map[*limitGroup]*allowance{}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for g := range r.granted {
		if a := g.allowance.Load(); a.over(now) {
			over[g] = a
		}
	}
	return over
}
