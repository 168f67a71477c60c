package telemt

import (
	"net/netip"
	"time"

	"nodeagent/telemt/api"
	"nodeagent/telemt/service"
)

// Presence tells that a client's first session from an address began or that the
// last one ended. IP is invalid for a visit so short that only its bytes were
// seen.
type Presence struct {
	Slot   uint32
	IP     netip.Addr
	Online bool
	At     time.Time // UTC
}

// traffic is what the clients of one inbound did: it hands their bytes to their
// slots, tells who comes and goes, and closes the slots of those who left once
// nothing more can come for them.
type traffic struct {
	deps    Deps
	meter   meter
	slots   map[string]uint32 // by user name; those who left stay until their slot is closed
	online  map[userAddr]struct{}
	moved   map[string]bool // users with bytes since the last look at who is there
	removed map[string]int  // users who left → looks since then
}

type userAddr struct {
	user string
	ip   netip.Addr
}

// readsToClose is how many looks after a client's removal its slot is closed: the
// first one may have been under way already.
const readsToClose = 2

func newTraffic(deps Deps) *traffic {
	return &traffic{deps: deps, slots: map[string]uint32{}, online: map[userAddr]struct{}{}, moved: map[string]bool{}, removed: map[string]int{}}
}

// setClients tells who the clients are from now on.
func (t *traffic) setClients(in service.Inbound) {
	now := make(map[string]bool, len(in.Clients))
	for _, c := range in.Clients {
		name := in.UserName(c)
		now[name] = true
		delete(t.removed, name)
		if old, known := t.slots[name]; known && old != c.Slot { // it left and came back
			t.closeSlot(name)
		}
		t.slots[name] = c.Slot
	}
	for name := range t.slots {
		if _, leaves := t.removed[name]; !now[name] && !leaves {
			t.removed[name] = 0
		}
	}
}

// addClients lets those who come be counted from now on. Who is here, or is leaving, is
// left to serve, which tells how the change went.
func (t *traffic) addClients(in service.Inbound) {
	for _, c := range in.Clients {
		if name := in.UserName(c); !t.known(name) {
			t.slots[name] = c.Slot
		}
	}
}

func (t *traffic) known(name string) bool {
	_, known := t.slots[name]
	return known
}

// add hands a reading's gains to the clients' slots.
func (t *traffic) add(s api.Sample) {
	for name, gained := range t.meter.gained(s) {
		if slot, known := t.slots[name]; known {
			t.deps.Count(slot, gained.Up, gained.Down)
			t.moved[name] = true
		}
	}
}

// updatePresence takes who has sessions open now. It follows a count.
func (t *traffic) updatePresence(active map[string][]netip.Addr, now time.Time) {
	here := map[userAddr]struct{}{}
	for name, addresses := range active {
		if _, known := t.slots[name]; !known {
			continue
		}
		for _, ip := range addresses {
			who := userAddr{name, ip.Unmap()}
			here[who] = struct{}{}
			if _, was := t.online[who]; !was {
				t.report(who, true, now)
			}
			delete(t.moved, name)
		}
	}
	for who := range t.online {
		delete(t.moved, who.user)
		if _, is := here[who]; !is {
			t.report(who, false, now)
		}
	}
	for name := range t.moved { // come and gone between two looks
		t.report(userAddr{user: name}, true, now)
		t.report(userAddr{user: name}, false, now)
	}
	clear(t.moved)
	t.online = here
	for name := range t.removed {
		if t.removed[name]++; t.removed[name] >= readsToClose {
			t.closeSlot(name)
		}
	}
}

func (t *traffic) report(who userAddr, online bool, at time.Time) {
	t.deps.Presence(Presence{Slot: t.slots[who.user], IP: who.ip, Online: online, At: at.UTC()})
}

// processEnded tells that telemt has ended and its counters have been read as far as
// they could be.
func (t *traffic) processEnded(now time.Time) {
	t.updatePresence(nil, now)
	t.meter.reset()
	for name := range t.removed {
		t.closeSlot(name)
	}
}

// inboundRemoved tells that the inbound is gone with all its clients.
func (t *traffic) inboundRemoved(now time.Time) {
	t.setClients(service.Inbound{})
	t.processEnded(now)
}

// closeSlot gives the user's slot back, its visits told to their end before: the slot
// may be another's at once.
func (t *traffic) closeSlot(name string) {
	for who := range t.online {
		if who.user == name {
			t.report(who, false, time.Now())
			delete(t.online, who)
		}
	}
	delete(t.moved, name)
	t.deps.SlotsClosed([]uint32{t.slots[name]})
	delete(t.slots, name)
	delete(t.removed, name)
}
