package telemt

import (
	"net/netip"
	"time"

	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// Presence means that the first session of a client from an address has begun, or that the
// last one has ended.
type Presence struct {
	Slot   uint32
	IP     netip.Addr // not valid if the session was so short that only its bytes were seen
	Online bool
	At     time.Time // UTC
}

// traffic is what the clients of one inbound do. It adds their bytes to their slots,
// reports who is online, and closes the slots of removed clients once nothing more can be
// counted for them. It belongs to the keeper's goroutine. A name is always that of
// telemt's user; see service.Inbound.UserName.
type traffic struct {
	deps    Deps
	meter   meter
	slots   map[string]uint32 // by name, of clients and of removed clients
	grants  map[string]uint32 // the slots of the clients' grants, by name
	online  map[userAddr]struct{}
	moved   map[string]bool   // names that have moved bytes since the last updatePresence
	fresh   map[string]uint64 // bytes of both directions that keeper.countUsed has not taken, by name
	removed map[string]int    // names of removed clients, and the updatePresence calls since
	// users is record.Users. keep writes the record, before bytes are counted that it does not
	// explain; nil where there is no record.
	users map[string]counted
	keep  func()
	// asked is record.Reload, and inherited that of the daemon before until the first reading.
	asked, inherited *reloading
	// recent has the addresses from which users had sessions lately, for the next
	// updatePresence. seen has when each of a user's addresses was reported last.
	recent map[string][]netip.Addr
	seen   map[userAddr]time.Time
}

// userAddr is a user and an address from which sessions are open.
type userAddr struct {
	name string
	ip   netip.Addr
}

// readsToClose is the number of readings after which the slot of a removed client is
// closed. One is not enough: it can have begun before the removal.
const readsToClose = 2

func newTraffic(deps Deps) *traffic {
	return &traffic{deps: deps, slots: map[string]uint32{}, grants: map[string]uint32{}, online: map[userAddr]struct{}{}, moved: map[string]bool{}, fresh: map[string]uint64{}, removed: map[string]int{}, seen: map[userAddr]time.Time{}, users: map[string]counted{}}
}

// setClients says who the clients are from now on. All others are removed clients.
func (t *traffic) setClients(in service.Inbound) {
	now := make(map[string]bool, len(in.Clients))
	clear(t.grants)
	for _, c := range in.Clients {
		name := in.UserName(c)
		now[name] = true
		delete(t.removed, name)
		if old, known := t.slots[name]; known && old != c.Slot { // it was removed and added again
			t.closeSlot(name)
		}
		t.slots[name] = c.Slot
		if c.Grant != nil {
			t.grants[name] = c.Grant.Slot
		}
	}
	for name := range t.slots {
		if _, removed := t.removed[name]; !now[name] && !removed {
			t.removed[name] = 0
		}
	}
}

// addClients counts for new clients from now on, and changes nothing for others. It is
// for the time of a change, in which the new clients can already be connected. When the
// outcome of the change is known, setClients follows.
func (t *traffic) addClients(in service.Inbound) {
	for _, c := range in.Clients {
		name := in.UserName(c)
		if _, known := t.slots[name]; !known {
			t.slots[name] = c.Slot
			if c.Grant != nil {
				t.grants[name] = c.Grant.Slot
			}
		}
	}
}

// add adds what a reading has gained to the clients' slots.
func (t *traffic) add(s api.Sample) {
	if t.inherited != nil && t.inherited.begun(s, sinceBoot()) {
		t.meter.reset()
	}
	t.inherited = nil
	all := t.meter.gained(s)
	if t.meter.anew {
		t.asked = nil // the bases say it from now on
	}
	t.explain(s, all)
	for name, gained := range all {
		if slot, known := t.slots[name]; known {
			if grant, has := t.grants[name]; has { // first: a crash in between counts too much for the grant
				t.deps.Count(grant, gained.Up+gained.Down, 0)
			}
			t.deps.Count(slot, gained.Up, gained.Down)
			t.moved[name] = true
			t.fresh[name] += gained.Up + gained.Down
		}
	}
}

// explain brings the bases up to date for a reading of which gained is to be counted: a counter that
// begins at zero has what the slot has now as its base.
func (t *traffic) explain(s api.Sample, gained map[string]api.Octets) {
	if t.keep == nil {
		return
	}
	changed := false
	for name, slot := range t.slots {
		has, now := s.Users[name], t.deps.octets(slot)
		before := api.Octets{Up: has.Up - gained[name].Up, Down: has.Down - gained[name].Down}
		is := counted{slot, api.Octets{Up: now.Up - before.Up, Down: now.Down - before.Down}}
		if t.users[name] != is {
			t.users[name], changed = is, true
		}
	}
	for name := range t.users {
		if _, known := t.slots[name]; !known {
			delete(t.users, name)
			changed = true
		}
	}
	if changed {
		t.keep()
	}
}

// resume goes on where the daemon before has ended: what a slot has above its base was read.
func (t *traffic) resume(r record) {
	last := map[string]api.Octets{}
	for name, slot := range t.slots {
		user, was := r.Users[name]
		if !was || user.Slot != slot {
			continue
		}
		now := t.deps.octets(slot)
		last[name] = api.Octets{Up: now.Up - user.Base.Up, Down: now.Down - user.Base.Down}
		t.users[name] = user
	}
	t.meter = meter{at: time.Now(), last: last}
	t.inherited = r.Reload
}

// updatePresence takes the addresses from which each user has open sessions now. It
// follows an add, so that sessions which have begun and ended since the last
// updatePresence are known by their bytes.
func (t *traffic) updatePresence(active map[string][]netip.Addr, now time.Time) {
	online := map[userAddr]struct{}{}
	for name, addresses := range active {
		if _, known := t.slots[name]; !known {
			continue
		}
		for _, ip := range addresses {
			at := userAddr{name, ip.Unmap()}
			online[at] = struct{}{}
			if _, was := t.online[at]; !was {
				t.report(at, true, now)
			}
			delete(t.moved, name)
		}
	}
	for at := range t.online {
		delete(t.moved, at.name)
		if _, is := online[at]; !is {
			t.report(at, false, now)
		}
	}
	for name := range t.moved {
		for _, at := range t.visitors(name, now) {
			t.report(at, true, now)
			t.report(at, false, now)
		}
	}
	clear(t.moved)
	t.online, t.recent = online, nil
	for at, last := range t.seen {
		if now.Sub(last) > recentWindow {
			delete(t.seen, at)
		}
	}
	for name := range t.removed {
		if t.removed[name]++; t.removed[name] >= readsToClose {
			t.closeSlot(name)
		}
	}
}

// recentWindow is how long telemt names an address after a session from it has begun, with some
// time for slow answers.
const recentWindow = 35 * time.Second

// hasShortVisits reports whether a user has moved bytes whose sessions were not seen: neither
// before, nor among the active ones. It follows an add.
func (t *traffic) hasShortVisits(active map[string][]netip.Addr) bool {
	before := map[string]bool{}
	for at := range t.online {
		before[at.name] = true
	}
	for name := range t.moved {
		if !before[name] && len(active[name]) == 0 {
			return true
		}
	}
	return false
}

// setRecent takes where sessions came from lately, for the next updatePresence.
func (t *traffic) setRecent(users map[string]api.User) {
	t.recent = map[string][]netip.Addr{}
	for name, user := range users {
		t.recent[name] = user.Recent
	}
}

// visitors returns from where a user has had a session that began and ended since the last
// reading. telemt tells the addresses of its whole window: those that were not reported in it
// are new. Where no address is new and there are several others, the address is not known.
func (t *traffic) visitors(name string, now time.Time) []userAddr {
	var all, unseen []userAddr
	for _, ip := range t.recent[name] {
		at := userAddr{name, ip.Unmap()}
		all = append(all, at)
		if last, was := t.seen[at]; !was || now.Sub(last) > recentWindow {
			unseen = append(unseen, at)
		}
	}
	switch {
	case len(unseen) > 0:
		return unseen
	case len(all) == 1:
		return all
	}
	return []userAddr{{name: name}}
}

func (t *traffic) report(at userAddr, online bool, now time.Time) {
	if at.ip.IsValid() {
		t.seen[at] = now
	}
	t.deps.Presence(Presence{Slot: t.slots[at.name], IP: at.ip, Online: online, At: now.UTC()})
}

// processEnded says that telemt has ended, after its counters were read for the last time.
func (t *traffic) processEnded(now time.Time) {
	t.updatePresence(nil, now)
	t.meter.reset()
	for name := range t.removed {
		t.closeSlot(name)
	}
}

// inboundRemoved says that the inbound and all its clients are removed.
func (t *traffic) inboundRemoved(now time.Time) {
	t.setClients(service.Inbound{})
	t.processEnded(now)
}

// closeSlot gives the user's slot back. The slot can be another client's at once, so that
// the user is reported offline before.
func (t *traffic) closeSlot(name string) {
	for at := range t.online {
		if at.name == name {
			t.report(at, false, time.Now())
			delete(t.online, at)
		}
	}
	delete(t.moved, name)
	t.deps.SlotsClosed([]uint32{t.slots[name]})
	delete(t.slots, name)
	delete(t.removed, name)
}
