package traffic

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"nodeagent/internal/counters"
	"nodeagent/internal/grant"
	"nodeagent/internal/occupancy"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/life"
)

// Registry knows every client that may open a stream, and every open stream.
//
// Two kinds of goroutines call it. The goroutine of worker's server.operate changes the
// clients (Announce, Put, Remove and the functions that end streams), one operation after
// the other. The goroutine of each stream calls lookup, open and close through the
// Dispatcher, at any time.
//
// Locks: mu guards the maps below it and limitGroup.members. user.mu guards the open streams
// of one user. limitGroup.mu guards the limits of one group. visitorsMu guards visitors and
// leaving. Take
// them in this order: mu, then user.mu, then limitGroup.mu or visitorsMu. tell is called
// while user.mu or visitorsMu is held, so tell must not block and must not call the Registry.
// The methods whose names end in Locked are called while mu is held.
//
// Streams are killed without a lock: end, EndAnonymous and EndUnknownAccounts collect them
// under the lock and kill them after it, because kill makes the stream's goroutine call
// close, which takes the lock.
//
// Invariants: Remove and Put call end for each user that they take out of the maps, and from
// then on open admits no stream of that user. A slot of a removed client is reported as closed only after the last stream of its user has called
// close, so that no byte is added to the slot afterwards. Each stream for which open or
// openAnonymous returned nil is closed exactly once.
type Registry struct {
	tell    func(ipc.Message) // must not block
	Streams atomic.Int64      // open streams, with and without a client
	Refused refusals
	// SlotOf returns a slot of the counters file. It is set before the first client with a grant.
	SlotOf func(uint32) (*counters.Slot, error)
	// Table has what other workers have open, for limits over all of them; nil for none. It is set
	// before the first client with limits.
	Table *occupancy.Table
	// IPv6Prefix is how many bits of an IPv6 address limitIps counts by. It is set before the
	// first stream.
	IPv6Prefix int
	// ask finds out whether peers are there; see life.Table.Ask. end ends their connections.
	ask func(context.Context, []netip.AddrPort) life.Answer
	end func([]netip.AddrPort)
	// HeldBack is how long all streams together waited for their rates, in nanoseconds.
	HeldBack atomic.Int64

	visitorsMu sync.Mutex
	visitors   map[visitor]visit
	leaving    map[*user]struct{} // removed users that still have streams

	mu    sync.RWMutex
	users map[string]*user // by email, which is unique over all inbounds
	// sums has the sum of each inbound's clients; nil until it is needed. From then on it is kept up.
	sums   map[string]state.Sum
	named  map[accountName]*user
	placed map[string]*addressTable // users that are known by their address, by inbound tag
	groups map[string]*limitGroup   // by name
	// granted has the groups with a grant, which WatchGrants looks at.
	granted map[*limitGroup]struct{}
	// managed has the tags of the inbounds of which the registry knows all clients. The
	// values are the account names that belong to no client and are served without one
	// (state.Inbound.Unattributed). A removed inbound stays in the map, because a mux or QUIC
	// connection that it accepted may still open streams.
	managed map[string][]string
	// anonymous has the open streams that belong to no client, by the tag of the inbound.
	anonymous map[string]map[*stream]struct{}
}

// NewRegistry makes an empty Registry. It calls tell with presence and closed slots, from
// any goroutine. tell must not block.
func NewRegistry(tell func(ipc.Message)) *Registry {
	return &Registry{
		tell: tell, IPv6Prefix: defaultIPv6Prefix, ask: life.All.Ask, end: life.All.End, visitors: map[visitor]visit{}, leaving: map[*user]struct{}{}, users: map[string]*user{}, named: map[accountName]*user{},
		placed: map[string]*addressTable{}, groups: map[string]*limitGroup{}, granted: map[*limitGroup]struct{}{}, managed: map[string][]string{},
		anonymous: map[string]map[*stream]struct{}{},
	}
}

// accountName is an account's name on one inbound of a protocol without a user manager
// (SOCKS and HTTP), where the client sends this name and not its email.
type accountName struct{ inbound, name string }

// user is one client of one inbound. The fields above mu do not change, except group, which
// is written while both Registry.mu and user.mu are held.
type user struct {
	inbound string
	client  clientNames  // as the daemon sent it first
	mark    uint64       // state.Client.Mark; it shows whether the account or the slot has changed
	limits  state.Limits // as the daemon sent them last; guarded by Registry.mu, as grant and limitsOf
	grant   *grant.Grant
	// limitsOf is the group of limits, which the user is in only where there are some.
	limitsOf string
	slotID   uint32
	slot     *counters.Slot
	group    *limitGroup // nil where the client has no limits

	mu      sync.Mutex
	removed bool
	streams streams
}

// clientNames are by what a stream tells which client it belongs to: members of state.Client.
type clientNames struct {
	Email, User string
	Addresses   []netip.Prefix
}

// lookup returns the client of the inbound whose email or account name is name, or nil.
// unknown is true if the registry knows all clients of the inbound and name is not among
// them: the client was removed, or it never existed.
func (r *Registry) lookup(inbound, name string) (u *user, unknown bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if u := r.users[name]; u != nil && u.inbound == inbound {
		return u, false
	}
	if u := r.named[accountName{inbound, name}]; u != nil {
		return u, false
	}
	return nil, r.isUnknownNameLocked(inbound, name)
}

// Knows reports whether streams of the account are served, which may belong to no client.
func (r *Registry) Knows(inbound, account string) bool {
	_, unknown := r.lookup(inbound, account)
	return !unknown
}

// lookupAddress returns the client that has address inside the tunnel of the inbound, as
// addressTable.find does. unknown is true if no client of the tunnel has it.
func (r *Registry) lookupAddress(inbound string, address netip.Addr) (found *user, unknown bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if table := r.placed[inbound]; table != nil {
		found = table.find(address)
	}
	return found, found == nil
}

// indexLocked enters the user in the maps in which lookup and lookupAddress search.
func (r *Registry) indexLocked(u *user) {
	r.users[u.client.Email] = u
	if u.client.User != "" {
		r.named[accountName{u.inbound, u.client.User}] = u
	}
	if len(u.client.Addresses) > 0 {
		if r.placed[u.inbound] == nil {
			r.placed[u.inbound] = &addressTable{}
		}
		r.placed[u.inbound].add(u)
	}
}

// unindexLocked undoes indexLocked. It leaves an account name alone that another user has
// by now.
func (r *Registry) unindexLocked(u *user) {
	delete(r.users, u.client.Email)
	if name := (accountName{u.inbound, u.client.User}); r.named[name] == u {
		delete(r.named, name)
	}
	if table := r.placed[u.inbound]; table != nil {
		if table.remove(u); table.prefixes.Size() == 0 {
			delete(r.placed, u.inbound)
		}
	}
}

// Announce makes the inbound and its new clients known before the clients can connect,
// because a stream of an unknown client is refused. slots[i] is the slot of clients[i].
//
// A client that was known before stays as it is. The caller passes it to Put when the change
// has succeeded, and calls Undo when the change has failed.
func (r *Registry) Announce(in state.Inbound, clients []state.Client, slots []*counters.Slot) pendingClients {
	r.mu.Lock()
	defer r.mu.Unlock()
	inbound := in.Tag
	unattributed, managed := r.managed[inbound]
	if state.Protocols[in.Protocol].KnowsClients() {
		r.managed[inbound] = in.Unattributed
	} else {
		delete(r.managed, inbound)
	}
	before := map[*limitGroup]bounds{}
	var added []string
	var known pendingClients
	if len(r.users) == 0 { // a map that grows with 100,000 clients is made anew fifteen times
		r.users, added = make(map[string]*user, len(clients)), make([]string, 0, len(clients))
	}
	for i, c := range clients {
		if r.users[c.Email] != nil {
			known.Known, known.KnownSlots = append(known.Known, c), append(known.KnownSlots, slots[i])
			continue
		}
		added = append(added, c.Email)
		if g := r.groups[c.Group]; g != nil {
			if _, seen := before[g]; !seen {
				before[g] = g.current()
			}
		}
		r.putLocked(inbound, c, slots[i])
	}
	known.Undo = func() {
		r.Remove(added)
		r.mu.Lock()
		defer r.mu.Unlock()
		if managed || state.Protocols[in.Protocol].KnowsClients() {
			r.managed[inbound] = unattributed
		}
		for g, bounds := range before {
			r.setLocked(g, bounds)
		}
		for _, u := range r.users {
			if u.inbound == inbound {
				r.indexLocked(u) // a client of added may have taken its account name
			}
		}
	}
	return known
}

// pendingClients is what remains to be done after Announce.
type pendingClients struct {
	// Known are the clients that the registry knew before Announce. Put applies their new
	// accounts and limits, once the change has succeeded.
	Known      []state.Client
	KnownSlots []*counters.Slot // the slot of each client in Known
	// Undo takes back what Announce did, after the change has failed.
	Undo func()
}

// Put makes the clients of an inbound known. slots[i] is the slot of clients[i]. A known
// client with the same account keeps its streams and gets the new limits. A known client
// whose account has changed loses its streams.
func (r *Registry) Put(inbound string, clients []state.Client, slots []*counters.Slot) {
	var changed []*user
	r.mu.Lock()
	for i, c := range clients {
		if u := r.putLocked(inbound, c, slots[i]); u != nil {
			changed = append(changed, u)
		}
	}
	r.mu.Unlock()
	for _, u := range changed {
		r.endUser(u)
	}
}

// putLocked makes one client known. If the client's account or slot has changed, it
// returns the user that it has replaced. The caller ends that user's streams after it has
// released mu.
func (r *Registry) putLocked(inbound string, c state.Client, slot *counters.Slot) (changed *user) {
	mark := c.Mark()
	group := r.joinGroupLocked(c)
	known := r.users[c.Email]
	if known != nil {
		r.leaveGroupLocked(known.group)
	}
	if known != nil {
		r.sumLocked(known, false)
	}
	if known != nil && known.mark == mark && known.slotID == c.Slot {
		known.limits, known.grant, known.limitsOf = c.Limits, c.Grant, c.Group
		r.sumLocked(known, true)
		known.mu.Lock()
		known.group = group
		for s := range known.streams.all() {
			s.join(group)
		}
		known.mu.Unlock()
		r.indexLocked(known) // another client may have had its account name until now
		return nil
	}
	if known != nil {
		r.unindexLocked(known)
	}
	u := &user{inbound: inbound, client: clientNames{c.Email, c.User, c.Addresses}, mark: mark, limits: c.Limits, grant: c.Grant, limitsOf: c.Group, slotID: c.Slot, slot: slot, group: group}
	r.indexLocked(u)
	r.sumLocked(u, true)
	return known
}

// Remove forgets the clients and ends their streams. It reports the slot of each client as
// closed once no stream adds bytes to it any more.
func (r *Registry) Remove(emails []string) {
	r.mu.Lock()
	gone := make([]*user, 0, len(emails))
	for _, email := range emails {
		if u := r.users[email]; u != nil {
			gone = append(gone, u)
			r.sumLocked(u, false)
			r.unindexLocked(u)
			r.leaveGroupLocked(u.group)
		}
	}
	r.mu.Unlock()
	var idle []uint32
	for _, u := range gone {
		if r.endUser(u) == 0 {
			idle = append(idle, u.slotID)
		}
	}
	if len(idle) > 0 {
		r.tell(ipc.Message{Closed: idle})
	}
}

// RemoveOthers removes the clients of the inbound that are not in keep, as Remove does.
func (r *Registry) RemoveOthers(inbound string, keep []state.Client) {
	kept := make(map[string]bool, len(keep))
	for _, c := range keep {
		kept[c.Email] = true
	}
	var others []string
	r.mu.RLock()
	for email, u := range r.users {
		if u.inbound == inbound && !kept[email] {
			others = append(others, email)
		}
	}
	r.mu.RUnlock()
	r.Remove(others)
}

// end makes open refuse further streams of the user and kills the open streams. It returns
// how many it killed.
func (r *Registry) endUser(u *user) int {
	u.mu.Lock()
	u.removed = true
	open := slices.Collect(u.streams.all())
	if len(open) > 0 {
		r.visitorsMu.Lock()
		r.leaving[u] = struct{}{}
		r.visitorsMu.Unlock()
	}
	u.mu.Unlock()
	for _, s := range open {
		s.kill()
	}
	return len(open)
}

// open admits a stream of s.user, or returns why it is refused: errRemoved, errTooManyIPs
// or errTooManyStreams. The caller calls close for each stream that was admitted.
func (r *Registry) open(s *stream) error {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.removed {
		return errRemoved
	}
	if u.group != nil {
		if err := u.group.admit(s); err != nil {
			return err
		}
		s.group.Store(u.group)
	}
	u.streams.add(s)
	r.Streams.Add(1)
	r.visit(visitor{u.slotID, s.source}, 1)
	return nil
}

// close unregisters a stream that open admitted.
func (r *Registry) close(s *stream) {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	s.join(nil)
	u.streams.remove(s)
	r.Streams.Add(-1)
	r.visit(visitor{u.slotID, s.source}, -1)
	if u.streams.empty() && u.removed {
		r.left(u)
	}
}
