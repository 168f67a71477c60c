package worker

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nodeagent/xray"
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

func (r *refusals) counts() xray.Refused {
	return xray.Refused{Connections: r.connections.Load(), Addresses: r.addresses.Load(), Strangers: r.strangers.Load()}
}

// limitGroup holds one client's limits over all its inbounds.
type limitGroup struct {
	name     string
	members  int           // guarded by the registry's lock
	heldBack *atomic.Int64 // nanoseconds, of all groups together

	mu        sync.Mutex
	limits    xray.Limits
	addresses map[netip.Addr]int
	streams   int
	changed   chan struct{} // closed, and made anew, when the limits are others

	up, down rate.Limiter // in bytes a second
}

// joinGroup returns the group of a client with limits, nil for one without.
// The limits that were given last hold. Called under the registry's lock.
func (r *registry) joinGroup(c xray.Client) *limitGroup {
	if c.Group == "" || c.Limits == (xray.Limits{}) {
		return nil
	}
	g := r.groups[c.Group]
	if g == nil {
		g = &limitGroup{name: c.Group, heldBack: &r.heldBack, addresses: map[netip.Addr]int{}, changed: make(chan struct{})}
		r.groups[c.Group] = g
	}
	g.members++
	g.set(c.Limits)
	return g
}

func (g *limitGroup) set(limits xray.Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits == limits {
		return
	}
	g.limits = limits
	setRate(&g.up, limits.RateUpBitsPerSecond)
	setRate(&g.down, limits.RateDownBitsPerSecond)
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *limitGroup) current() xray.Limits {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits
}

// leaveGroup is called under the registry's lock.
func (r *registry) leaveGroup(g *limitGroup) {
	if g == nil {
		return
	}
	if g.members--; g.members == 0 {
		delete(r.groups, g.name)
		g.set(xray.Limits{}) // nobody is to wait on for a rate that is gone
	}
}

func setRate(l *rate.Limiter, bitsPerSecond int64) {
	if bitsPerSecond == 0 {
		l.SetLimit(rate.Inf)
		return
	}
	bytesPerSecond := bitsPerSecond / 8
	l.SetBurst(int(max(bytesPerSecond/10, minBurst)))
	l.SetLimit(rate.Limit(bytesPerSecond))
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

// wait returns once n bytes may pass the limiter, which is the group's up or down. Other
// limits hold for who waits already, too.
func (g *limitGroup) wait(ctx context.Context, l *rate.Limiter, n int) error {
	if l.Limit() == rate.Inf {
		return nil
	}
	began := time.Now()
	defer func() { g.heldBack.Add(int64(time.Since(began))) }()
	for n > 0 {
		part := min(n, l.Burst())
		passed, err := g.waitPart(ctx, l, part)
		if err != nil {
			return err
		}
		if passed {
			n -= part
		}
	}
	return nil
}

// waitPart waits for at most a burst. False where the limits became others meanwhile.
func (g *limitGroup) waitPart(ctx context.Context, l *rate.Limiter, n int) (passed bool, err error) {
	g.mu.Lock()
	changed := g.changed
	reserved := l.ReserveN(time.Now(), n)
	g.mu.Unlock()
	if !reserved.OK() {
		return false, nil // the burst became a smaller one
	}
	delay := reserved.Delay()
	if delay == 0 {
		return true, ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-changed:
		reserved.Cancel()
		return false, nil
	case <-ctx.Done():
		reserved.Cancel()
		return false, ctx.Err()
	}
}
