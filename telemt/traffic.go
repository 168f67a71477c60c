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
	visits  map[visit]struct{}
	moved   map[string]bool // users with bytes since the last look at who is there
	leaving map[string]int  // users who left → looks since then
}

type visit struct {
	user string
	ip   netip.Addr
}

// looksToClose is how many looks after a client's removal its slot is closed: the
// first one may have been under way already.
const looksToClose = 2

func newTraffic(deps Deps) *traffic {
	return &traffic{deps: deps, slots: map[string]uint32{}, visits: map[visit]struct{}{}, moved: map[string]bool{}, leaving: map[string]int{}}
}

// serve tells who the clients are from now on.
func (t *traffic) serve(in service.Inbound) {
	now := make(map[string]bool, len(in.Clients))
	for _, c := range in.Clients {
		name := in.Name(c)
		now[name] = true
		delete(t.leaving, name)
		if old, known := t.slots[name]; known && old != c.Slot { // it left and came back
			t.close(name)
		}
		t.slots[name] = c.Slot
	}
	for name := range t.slots {
		if _, leaves := t.leaving[name]; !now[name] && !leaves {
			t.leaving[name] = 0
		}
	}
}

// welcome lets those who come be counted from now on. Who is here, or is leaving, is
// left to serve, which tells how the change went.
func (t *traffic) welcome(in service.Inbound) {
	for _, c := range in.Clients {
		if name := in.Name(c); !t.known(name) {
			t.slots[name] = c.Slot
		}
	}
}

func (t *traffic) known(name string) bool {
	_, known := t.slots[name]
	return known
}

// count hands a reading's gains to the clients' slots.
func (t *traffic) count(s api.Sample) {
	for name, gained := range t.meter.read(s) {
		if slot, known := t.slots[name]; known {
			t.deps.Count(slot, gained.Up, gained.Down)
			t.moved[name] = true
		}
	}
}

// look takes who has sessions open now. It follows a count.
func (t *traffic) look(active map[string][]netip.Addr, now time.Time) {
	here := map[visit]struct{}{}
	for name, addresses := range active {
		if _, known := t.slots[name]; !known {
			continue
		}
		for _, ip := range addresses {
			who := visit{name, ip.Unmap()}
			here[who] = struct{}{}
			if _, was := t.visits[who]; !was {
				t.tell(who, true, now)
			}
			delete(t.moved, name)
		}
	}
	for who := range t.visits {
		delete(t.moved, who.user)
		if _, is := here[who]; !is {
			t.tell(who, false, now)
		}
	}
	for name := range t.moved { // come and gone between two looks
		t.tell(visit{user: name}, true, now)
		t.tell(visit{user: name}, false, now)
	}
	clear(t.moved)
	t.visits = here
	for name := range t.leaving {
		if t.leaving[name]++; t.leaving[name] >= looksToClose {
			t.close(name)
		}
	}
}

func (t *traffic) tell(who visit, online bool, at time.Time) {
	t.deps.Presence(Presence{Slot: t.slots[who.user], IP: who.ip, Online: online, At: at.UTC()})
}

// ended tells that telemt has ended and its counters have been read as far as
// they could be.
func (t *traffic) ended(now time.Time) {
	t.look(nil, now)
	t.meter.restart()
	for name := range t.leaving {
		t.close(name)
	}
}

// removed tells that the inbound is gone with all its clients.
func (t *traffic) removed(now time.Time) {
	t.serve(service.Inbound{})
	t.ended(now)
}

// close gives the user's slot back, its visits told to their end before: the slot
// may be another's at once.
func (t *traffic) close(name string) {
	for who := range t.visits {
		if who.user == name {
			t.tell(who, false, time.Now())
			delete(t.visits, who)
		}
	}
	delete(t.moved, name)
	t.deps.SlotsClosed([]uint32{t.slots[name]})
	delete(t.slots, name)
	delete(t.leaving, name)
}
