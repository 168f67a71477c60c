package traffic

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/time/rate"

	"nodeagent/internal/occupancy"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// minBurst is the smallest burst of a rate, in bytes. A smaller one would split every read.
const minBurst = 64 << 10

var (
	errRemoved         = errors.New("refuse stream: the client was removed")
	errTooManyIPs      = errors.New("refuse stream: the client is online from as many addresses as it may")
	errTooManyStreams  = errors.New("refuse stream: the client has as many connections open as it may")
	errGrantOver       = errors.New("refuse stream: the client has used up what Core grants it, or the grant has expired")
	errNotOfThisClient = errors.New("refuse stream: no such client on this inbound")
)

// refusals counts the streams that were refused.
type refusals struct{ connections, addresses, grants, strangers atomic.Int64 }

func (r *refusals) add(reason error) {
	switch {
	case errors.Is(reason, errTooManyStreams):
		r.connections.Add(1)
	case errors.Is(reason, errTooManyIPs):
		r.addresses.Add(1)
	case errors.Is(reason, errGrantOver):
		r.grants.Add(1)
	default:
		r.strangers.Add(1)
	}
}

func (r *refusals) Counts() ipc.Refused {
	return ipc.Refused{Connections: r.connections.Load(), Addresses: r.addresses.Load(), Grants: r.grants.Load(), Strangers: r.strangers.Load()}
}

// limitGroup enforces the limits of one person, who may be a client of several inbounds.
// Each of these clients is a user, and all of them share the group.
//
// Registry.mu guards members and the map Registry.groups: the group exists while it has
// members. mu guards limits, addresses, streams and changed. If you also lock Registry.mu or
// user.mu, take them first. No other lock is taken while mu is held.
//
// up and down are written while mu is held and read without it. The goroutine of each stream
// waits in wait, without a lock. When a rate changes, set replaces the limiters and closes
// changed: each waiting goroutine wakes up and waits again, for the bytes that have not
// passed yet, with the new limiter.
//
// Invariants: streams is the number of streams in addresses, and no set is empty. Each
// admit or enter is followed by one leave, before which vacate may have taken the stream out.
// streams may exceed limits.Connections, because enter counts streams that were open before
// the limits existed and because limits may become lower; open streams are not ended for that.
type limitGroup struct {
	name     string
	person   uint64           // a hash of name, for table
	table    *occupancy.Table // Registry.Table
	members  int              // the users in the group; guarded by Registry.mu
	heldBack *atomic.Int64    // Registry.HeldBack, in nanoseconds, which all groups share

	mu        sync.Mutex
	limits    state.Limits
	addresses places // open streams
	streams   int    // their number
	// shared is what other workers see of addresses, by the same keys; nil where they can't.
	shared   map[netip.Addr]*occupancy.Place
	changed  chan struct{} // set closes and replaces it when a rate changes
	asking   chan struct{} // closed once makeRoom has asked; nil if it asks nobody
	answered time.Time     // when makeRoom last found that all are there

	up, down atomic.Pointer[rate.Limiter] // bytes per second; nil for no limit
	// allowance is the person's grant, nil for none. It is written as up and down are.
	allowance atomic.Pointer[allowance]
}

// joinGroupLocked adds a member to the client's group and returns the group. It returns nil
// for a client without limits. The group gets the limits of the member that joined last.
func (r *Registry) joinGroupLocked(c state.Client) *limitGroup {
	if c.Group == "" || !c.Bounded() {
		return nil
	}
	g := r.groups[c.Group]
	if g == nil {
		g = &limitGroup{name: c.Group, person: xxhash.Sum64String(c.Group), table: r.Table, shared: map[netip.Addr]*occupancy.Place{}, heldBack: &r.HeldBack, addresses: places{}, changed: make(chan struct{})}
		r.groups[c.Group] = g
	}
	g.members++
	r.setLocked(g, bounds{c.Limits, r.allowanceOf(c.Grant)})
	return g
}

// bounds are the limits of a group, and its grant, which is nil for none.
type bounds struct {
	limits    state.Limits
	allowance *allowance
}

// setLocked gives a group other bounds.
func (r *Registry) setLocked(g *limitGroup, to bounds) {
	if to.allowance != nil {
		r.granted[g] = struct{}{}
	} else {
		delete(r.granted, g)
	}
	g.set(to)
}

func (g *limitGroup) set(to bounds) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before, limits := g.limits, to.limits
	g.limits = limits
	g.allowance.Store(to.allowance)
	if before.RateUpBitsPerSecond == limits.RateUpBitsPerSecond && before.RateDownBitsPerSecond == limits.RateDownBitsPerSecond {
		return
	}
	g.up.Store(newLimiter(limits.RateUpBitsPerSecond))
	g.down.Store(newLimiter(limits.RateDownBitsPerSecond))
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *limitGroup) current() bounds {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bounds{g.limits, g.allowance.Load()}
}

// leaveGroupLocked removes a member from the group, and the group with its last member.
// g may be nil.
func (r *Registry) leaveGroupLocked(g *limitGroup) {
	if g == nil {
		return
	}
	if g.members--; g.members == 0 {
		delete(r.groups, g.name)
		r.setLocked(g, bounds{}) // the streams that wait for the rate go on at once
	}
}

// newLimiter returns a limiter whose burst is used up, so that frequent changes of a rate
// do not let more bytes pass. It returns nil for a rate of zero.
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

// admit counts a new stream, or returns errGrantOver, errTooManyStreams or errTooManyIPs.
func (g *limitGroup) admit(s *stream) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table.Shared() { // no other worker admits one meanwhile
		defer g.table.Lock()()
		if err := g.refusalLocked(s); err != nil {
			return err
		}
		g.enterLocked(s, true)
		return nil
	}
	if err := g.refusalLocked(s); err != nil {
		return err
	}
	g.enterLocked(s, false)
	return nil
}

// refusalLocked returns which limit keeps a new stream out, or nil.
func (g *limitGroup) refusalLocked(s *stream) error {
	if g.allowance.Load().over(time.Now()) {
		return errGrantOver
	}
	streams, addresses, known := g.streams, len(g.addresses), g.addresses[s.place] != nil
	if g.limits.Connections > 0 || g.limits.IPs > 0 {
		g.table.Others(g.person, func(place uint64, open int) {
			streams += open
			known = known || place == placeHash(s.place)
			for own := range g.addresses {
				if place == placeHash(own) {
					return
				}
			}
			addresses++
		})
	}
	if g.limits.Connections > 0 && streams >= g.limits.Connections {
		return errTooManyStreams
	}
	if g.limits.IPs > 0 && !known && addresses >= g.limits.IPs {
		return errTooManyIPs
	}
	return nil
}

// placeHash stands for a place in the table of all workers.
func placeHash(place netip.Addr) uint64 {
	bytes := place.As16()
	return xxhash.Sum64(bytes[:])
}

// enter counts a stream that was open before its user joined the group. Unlike admit, it
// refuses none.
func (g *limitGroup) enter(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enterLocked(s, false)
}

// enterLocked counts a stream. locked tells that the caller has locked the table.
func (g *limitGroup) enterLocked(s *stream, locked bool) {
	if g.addresses[s.place] == nil {
		g.addresses[s.place] = map[*stream]struct{}{}
		if !locked {
			defer g.table.Lock()()
		}
		g.shared[s.place] = g.table.Enter(g.person, placeHash(s.place))
	} else {
		g.shared[s.place].Again()
	}
	g.addresses[s.place][s] = struct{}{}
	g.streams++
}

// leave takes a stream out, unless it is out already.
func (g *limitGroup) leave(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	streams := g.addresses[s.place]
	if _, here := streams[s]; !here {
		return
	}
	g.streams--
	g.shared[s.place].Leave(1)
	if delete(streams, s); len(streams) == 0 {
		delete(g.addresses, s.place)
		delete(g.shared, s.place)
	}
}

// wait returns once n bytes may pass. direction is the group's up or down. A rate that
// changes while wait waits applies to the bytes that have not passed yet.
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

// waitPart waits for n bytes, but for no more than a burst. It returns how many bytes
// passed. This is zero if the limits changed meanwhile.
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
	case <-changed: // no Cancel: no goroutine waits for the old limiter any more
		return 0, nil
	case <-ctx.Done():
		reserved.Cancel()
		return 0, ctx.Err()
	}
}
