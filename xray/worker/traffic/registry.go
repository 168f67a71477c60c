package traffic

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// Registry knows every client that may open a stream, and every open stream.
type Registry struct {
	tell    func(ipc.Message) // must not block
	Streams atomic.Int64      // open ones, of all clients
	Refused refusals
	// heldBack is how long streams waited for their rates, in nanoseconds.
	HeldBack atomic.Int64

	visitorsMu sync.Mutex
	visitors   map[visitor]int // open streams

	mu     sync.RWMutex
	users  map[string]*user // by email, which is unique over all inbounds
	named  map[accountName]*user
	placed map[string]*addressTable // users known by their address, by inbound
	groups map[string]*limitGroup
	// managed has the inbounds whose clients are all known here, each with the names
	// that are nobody's and are served all the same. Those that are gone stay: a carrier
	// of theirs may bring a stream yet.
	managed map[string][]string
	// anonymous streams, of no client, by the tag of their inbound
	anonymous map[string]map[*stream]struct{}
}

// NewRegistry makes an empty registry. tell gets presence and closed slots; it must not block.
func NewRegistry(tell func(ipc.Message)) *Registry {
	return &Registry{
		tell: tell, visitors: map[visitor]int{}, users: map[string]*user{}, named: map[accountName]*user{},
		placed: map[string]*addressTable{}, groups: map[string]*limitGroup{}, managed: map[string][]string{},
		anonymous: map[string]map[*stream]struct{}{},
	}
}

// accountName is the name that a client of a protocol without a user manager gives.
type accountName struct{ inbound, name string }

// user is one client of one inbound.
type user struct {
	inbound string
	client  state.Client // as it was told
	account uint64       // hash of the account, to tell a changed one
	slotID  uint32
	slot    *counters.Slot
	group   *limitGroup // nil where the client has no limits

	mu      sync.Mutex
	removed bool
	streams map[*stream]struct{}
}

// visitor is a client at an address. It is known by the client's slot: one whose
// account changed is the same person.
type visitor struct {
	slot   uint32
	source netip.Addr
}

// lookup returns the client with that name on that inbound, nil where there is
// none. strange tells that there should be one: it was removed, or never was.
func (r *Registry) lookup(inbound, email string) (u *user, strange bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if u := r.users[email]; u != nil && u.inbound == inbound {
		return u, false
	}
	if u := r.named[accountName{inbound, email}]; u != nil {
		return u, false
	}
	return nil, r.isUnknownName(inbound, email)
}

// lookupAddress returns the client of a tunnel that has the address inside it, as
// addressTable.find does. strange tells that there is none: the address is not in the
// tunnel's configuration.
func (r *Registry) lookupAddress(inbound string, address netip.Addr) (found *user, strange bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if table := r.placed[inbound]; table != nil {
		found = table.find(address)
	}
	return found, found == nil
}

// index makes the user findable, and unindex takes that back. Called under the
// lock.
func (r *Registry) index(u *user) {
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

func (r *Registry) unindex(u *user) {
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

// Announce makes an inbound known, and those of the clients who are not yet, before
// they can connect: a stream of an unknown client is refused. Each client has the slot
// of its index.
func (r *Registry) Announce(in state.Inbound, clients []state.Client, slots []*counters.Slot) pendingClients {
	r.mu.Lock()
	defer r.mu.Unlock()
	inbound := in.Tag
	nobodys, managed := r.managed[inbound]
	if state.Protocols[in.Protocol].KnowsClients() {
		r.managed[inbound] = in.Unattributed
	} else {
		delete(r.managed, inbound)
	}
	limits := map[*limitGroup]state.Limits{}
	var come []string
	var known pendingClients
	for i, c := range clients {
		if r.users[c.Email] != nil {
			known.Known, known.KnownSlots = append(known.Known, c), append(known.KnownSlots, slots[i])
			continue
		}
		come = append(come, c.Email)
		if g := r.groups[c.Group]; g != nil {
			if _, seen := limits[g]; !seen {
				limits[g] = g.current()
			}
		}
		r.putOne(inbound, c, slots[i])
	}
	known.Undo = func() {
		r.Remove(come)
		r.mu.Lock()
		defer r.mu.Unlock()
		if managed || state.Protocols[in.Protocol].KnowsClients() {
			r.managed[inbound] = nobodys
		}
		for g, before := range limits {
			g.set(before)
		}
		for _, u := range r.users {
			if u.inbound == inbound {
				r.index(u) // one who came may have had its place
			}
		}
	}
	return known
}

// pendingClients is half of a change of clients.
type pendingClients struct {
	// rest are those who were known before, with their slots: put lets their changes
	// hold, once the change is done.
	Known      []state.Client
	KnownSlots []*counters.Slot
	// undo makes it as if the introduction had not been, where they can't come after all.
	Undo func()
}

// Put makes the clients known. One that is known with this very account keeps
// its streams and gets its new limits; one whose account changed loses them.
func (r *Registry) Put(inbound string, clients []state.Client, slots []*counters.Slot) {
	var changed []*user
	r.mu.Lock()
	for i, c := range clients {
		if u := r.putOne(inbound, c, slots[i]); u != nil {
			changed = append(changed, u)
		}
	}
	r.mu.Unlock()
	for _, u := range changed {
		u.end()
	}
}

// putOne returns the user whose place the client takes, if its account changed.
// Called under the lock.
func (r *Registry) putOne(inbound string, c state.Client, slot *counters.Slot) (changed *user) {
	hash := hashAccount(c.Account)
	group := r.joinGroup(c)
	known := r.users[c.Email]
	if known != nil {
		r.leaveGroup(known.group)
	}
	if known != nil && known.account == hash && known.slotID == c.Slot {
		known.mu.Lock()
		known.group = group
		for s := range known.streams {
			s.join(group)
		}
		known.mu.Unlock()
		r.index(known) // another one of its name may have had its place
		return nil
	}
	if known != nil {
		r.unindex(known)
	}
	c.Account = nil // it is long, and known by its hash
	r.index(&user{inbound: inbound, client: c, account: hash, slotID: c.Slot, slot: slot, group: group})
	return known
}

// Remove forgets the clients and ends their streams. Each slot is told as
// closed once nothing counts to it any more.
func (r *Registry) Remove(emails []string) {
	r.mu.Lock()
	gone := make([]*user, 0, len(emails))
	for _, email := range emails {
		if u := r.users[email]; u != nil {
			gone = append(gone, u)
			r.unindex(u)
			r.leaveGroup(u.group)
		}
	}
	r.mu.Unlock()
	var idle []uint32
	for _, u := range gone {
		if u.end() == 0 {
			idle = append(idle, u.slotID)
		}
	}
	if len(idle) > 0 {
		r.tell(ipc.Message{Closed: idle})
	}
}

// RemoveOthers removes the inbound's clients that are not among keep.
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

// end refuses the client's further streams and kills the open ones, whose
// number it returns.
func (u *user) end() int {
	u.mu.Lock()
	u.removed = true
	streams := slices.Collect(maps.Keys(u.streams))
	u.mu.Unlock()
	for _, s := range streams {
		s.kill()
	}
	return len(streams)
}

// openAnonymous keeps a stream that belongs to no client, so that it ends with its
// inbound, and with its account.
func (r *Registry) openAnonymous(inbound string, s *stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isUnknownName(inbound, s.name) {
		return errNotOfThisClient // it became one since it was looked up
	}
	if r.anonymous[inbound] == nil {
		r.anonymous[inbound] = map[*stream]struct{}{}
	}
	r.anonymous[inbound][s] = struct{}{}
	r.Streams.Add(1)
	return nil
}

// isUnknownName tells a name that is no account's of the inbound, as far as that is known.
// Called under the lock.
func (r *Registry) isUnknownName(inbound, name string) bool {
	nobodys, managed := r.managed[inbound]
	return managed && name != "" && !slices.Contains(nobodys, name)
}

func (r *Registry) closeAnonymous(inbound string, s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.anonymous[inbound], s)
	r.Streams.Add(-1)
	if len(r.anonymous[inbound]) == 0 {
		delete(r.anonymous, inbound)
	}
}

// EndAnonymous ends the inbound's streams that belong to no client.
func (r *Registry) EndAnonymous(inbound string) {
	r.mu.RLock()
	streams := slices.Collect(maps.Keys(r.anonymous[inbound]))
	r.mu.RUnlock()
	for _, s := range streams {
		s.kill()
	}
}

// EndUnknownAccounts ends the inbound's streams whose account was nobody's and is gone.
func (r *Registry) EndUnknownAccounts(inbound string) {
	var gone []*stream
	r.mu.RLock()
	for s := range r.anonymous[inbound] {
		if r.isUnknownName(inbound, s.name) {
			gone = append(gone, s)
		}
	}
	r.mu.RUnlock()
	for _, s := range gone {
		s.kill()
	}
}

// open admits a stream of the client, or tells why it is refused.
func (r *Registry) open(s *stream) error {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.removed {
		return errRemoved
	}
	if u.group != nil {
		if err := u.group.admit(s.source); err != nil {
			return err
		}
		s.group.Store(u.group)
	}
	if u.streams == nil {
		u.streams = map[*stream]struct{}{}
	}
	u.streams[s] = struct{}{}
	r.Streams.Add(1)
	r.visit(visitor{u.slotID, s.source}, 1)
	return nil
}

// visit counts a visitor's streams and tells the first and the last one: under
// the lock, so that an online and an offline keep their order.
func (r *Registry) visit(who visitor, change int) {
	r.visitorsMu.Lock()
	defer r.visitorsMu.Unlock()
	before := r.visitors[who]
	if r.visitors[who] = before + change; before+change == 0 {
		delete(r.visitors, who)
	}
	if before == 0 || before+change == 0 {
		r.tell(presence(who.slot, who.source, change > 0))
	}
}

// close ends a stream that open admitted.
func (r *Registry) close(s *stream) {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	s.join(nil)
	delete(u.streams, s)
	r.Streams.Add(-1)
	r.visit(visitor{u.slotID, s.source}, -1)
	if len(u.streams) == 0 {
		u.streams = nil
		if u.removed {
			r.tell(ipc.Message{Closed: []uint32{u.slotID}})
		}
	}
}

func presence(slot uint32, source netip.Addr, online bool) ipc.Message {
	return ipc.Message{Event: &ipc.Presence{Slot: slot, IP: source, Online: online, At: time.Now().UTC()}}
}
