package traffic

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// minBurst lets a slow client move one buffer at once; below it every read
// would be split.
const minBurst = 64 << 10 // bytes

var (
	errRemoved         = errors.New("refuse stream: the client was removed")
	errTooManyIPs      = errors.New("refuse stream: the client is online from as many addresses as it may")
	errTooManyStreams  = errors.New("refuse stream: the client has as many connections open as it may")
	errNotOfThisClient = errors.New("refuse stream: no such client on this inbound")
)

// refusals counts the streams that were refused.
type refusals struct{ connections, addresses, strangers atomic.Int64 }

func (r *refusals) add(reason error) {
	switch {
	case errors.Is(reason, errTooManyStreams):
		r.connections.Add(1)
	case errors.Is(reason, errTooManyIPs):
		r.addresses.Add(1)
	default:
		r.strangers.Add(1)
	}
}

func (r *refusals) Counts() ipc.Refused {
	return ipc.Refused{Connections: r.connections.Load(), Addresses: r.addresses.Load(), Strangers: r.strangers.Load()}
}

// limitGroup holds one client's limits over all its inbounds.
type limitGroup struct {
	name     string
	members  int           // guarded by the registry's lock
	heldBack *atomic.Int64 // nanoseconds, of all groups together

	mu        sync.Mutex
	limits    state.Limits
	addresses map[netip.Addr]int
	streams   int
	changed   chan struct{} // closed, and made anew, when the rates are others

	up, down atomic.Pointer[rate.Limiter] // in bytes a second; nil for no limit
}

// joinGroup returns the group of a client with limits, nil for one without.
// The limits that were given last hold. Called under the registry's lock.
func (r *Registry) joinGroup(c state.Client) *limitGroup {
	if c.Group == "" || c.Limits == (state.Limits{}) {
		return nil
	}
	g := r.groups[c.Group]
	if g == nil {
		g = &limitGroup{name: c.Group, heldBack: &r.HeldBack, addresses: map[netip.Addr]int{}, changed: make(chan struct{})}
		r.groups[c.Group] = g
	}
	g.members++
	g.set(c.Limits)
	return g
}

func (g *limitGroup) set(limits state.Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.limits
	g.limits = limits
	if before.RateUpBitsPerSecond == limits.RateUpBitsPerSecond && before.RateDownBitsPerSecond == limits.RateDownBitsPerSecond {
		return
	}
	g.up.Store(newLimiter(limits.RateUpBitsPerSecond))
	g.down.Store(newLimiter(limits.RateDownBitsPerSecond))
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *limitGroup) current() state.Limits {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits
}

// leaveGroup is called under the registry's lock.
func (r *Registry) leaveGroup(g *limitGroup) {
	if g == nil {
		return
	}
	if g.members--; g.members == 0 {
		delete(r.groups, g.name)
		g.set(state.Limits{}) // nobody is to wait on for a rate that is gone
	}
}

// newLimiter returns one that has let a burst pass just now; nil for no rate.
func newLimiter(bitsPerSecond int64) *rate.Limiter {
	if bitsPerSecond == 0 {
		return nil
	}
	bytesPerSecond := bitsPerSecond / 8
	burst := int(max(bytesPerSecond/10, minBurst))
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
	l.AllowN(time.Now(), burst)
	return l
}

func (g *limitGroup) admit(source netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.Connections > 0 && g.streams >= g.limits.Connections {
		return errTooManyStreams
	}
	if g.limits.IPs > 0 && g.addresses[source] == 0 && len(g.addresses) >= g.limits.IPs {
		return errTooManyIPs
	}
	g.addresses[source]++
	g.streams++
	return nil
}

// enter counts a stream that was there before the group's limits were.
func (g *limitGroup) enter(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addresses[source]++
	g.streams++
}

func (g *limitGroup) leave(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.streams--
	if g.addresses[source]--; g.addresses[source] == 0 {
		delete(g.addresses, source)
	}
}

// wait returns once n bytes may pass the group's up or down. Other limits hold for who
// waits already, too.
func (g *limitGroup) wait(ctx context.Context, direction *atomic.Pointer[rate.Limiter], n int) error {
	if direction.Load() == nil {
		return nil
	}
	began := time.Now()
	defer func() { g.heldBack.Add(int64(time.Since(began))) }()
	for n > 0 {
		passed, err := g.waitPart(ctx, direction, n)
		if err != nil {
			return err
		}
		n -= passed
	}
	return nil
}

// waitPart waits for at most a burst, and returns how many bytes passed: none where the
// limits became others meanwhile.
func (g *limitGroup) waitPart(ctx context.Context, direction *atomic.Pointer[rate.Limiter], n int) (passed int, err error) {
	g.mu.Lock()
	l, changed := direction.Load(), g.changed
	g.mu.Unlock()
	if l == nil {
		return n, nil
	}
	n = min(n, l.Burst())
	reserved := l.ReserveN(time.Now(), n)
	delay := reserved.Delay()
	if delay == 0 {
		return n, ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, nil
	case <-changed: // nobody waits by the old limiter any more
		return 0, nil
	case <-ctx.Done():
		reserved.Cancel()
		return 0, ctx.Err()
	}
}
