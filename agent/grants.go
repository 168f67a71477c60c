package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

const (
	// grantsEvery is how often grantLoop looks at the grants. The engines end the clients by
	// themselves; grantLoop only makes the last rows of such a client early.
	grantsEvery = 250 * time.Millisecond
	// lastBytes is how long after the end of a grant its rows are made once more: its streams
	// have ended by then.
	lastBytes = 2 * time.Second
	// forgetEvery is how often grants that are over for good are forgotten.
	forgetEvery = time.Minute
)

// shareGrants gives each client the grant of its person, by the key in the client map: one on any
// inbound holds on all. Where a person has two, the first one in the order of counted holds, and
// each client that names another one is refused.
func (d *desired) shareGrants() (refused []*fault.Fault, err error) {
	grants := map[string]*grant.Grant{}
	refuse := func(tag, key, name string, g *grant.Grant) bool {
		first := grants[key]
		if g == nil || first == nil || first.Same(g) {
			if first == nil && g != nil {
				grants[key] = g
			}
			return false
		}
		f := fault.InText(tag, "inbound %q: a client names the grant %q of %d bytes, and on another inbound the grant %q of %d bytes: name one grant for one person", tag, g.ID, g.Bytes, first.ID, first.Bytes)
		f.Kind, f.Client = fault.Client, name
		refused = append(refused, f)
		return true
	}
	for _, tag := range d.xray.Tags() {
		wrong := map[string]bool{}
		for _, c := range d.xray.Inbounds[tag].Clients {
			if c.Reading.Granted && refuse(tag, c.Key, c.Name, c.Grant) {
				wrong[c.Key] = true
			}
		}
		if len(wrong) > 0 {
			in, err := d.xray.Inbounds[tag].Without(func(c *state.Client) bool { return c.Key != "" && wrong[c.Key] })
			if err != nil {
				return refused, err
			}
			d.xray.Inbounds[tag] = in
		}
	}
	for i := range d.mtproto.Inbounds {
		in := &d.mtproto.Inbounds[i]
		in.Clients = slices.DeleteFunc(in.Clients, func(c service.Client) bool { return refuse(in.Tag, c.ID, c.ID, c.Grant) })
	}
	for tag, in := range d.xray.Inbounds {
		in.Clients = withGrants(in.Clients, grants)
		d.xray.Inbounds[tag] = in
	}
	for _, in := range d.mtproto.Inbounds {
		for i := range in.Clients {
			in.Clients[i].Grant = grants[in.Clients[i].ID]
		}
	}
	return refused, nil
}

// withGrants returns the clients with the grants of their persons. The clients may be shared with the
// configuration that runs, so that those that change are copied.
func withGrants(clients state.Clients, grants map[string]*grant.Grant) state.Clients {
	copied := false
	for i, c := range clients {
		if c.Grant == grants[c.Key] {
			continue
		}
		if !copied {
			clients, copied = slices.Clone(clients), true
		}
		changed := *c
		changed.Grant, changed.Group = grants[c.Key], ""
		if changed.Bounded() {
			changed.Group = parse.GroupOf(c.Key)
		}
		clients[i] = &changed
	}
	return clients
}

// granted is one grant in a configuration.
type granted struct {
	owner store.Owner
	// same are the grant as its clients have it: one object, or two where Xray and MTProto have
	// their clients from two configurations.
	same    []*grant.Grant
	clients []uint32 // the slots of the clients
}

// name identifies the grant: one id of one person.
func (g *granted) name() [2]string { return [2]string{g.owner.Tag, g.owner.Key} }

// granted returns the grants of d, in the order of their owners. The slots are those of
// assignLocked.
func (d *desired) granted() []*granted {
	all := map[[2]string]*granted{} // by id and key
	add := func(key string, g *grant.Grant, slot uint32) {
		if g == nil {
			return
		}
		name := [2]string{g.ID, key}
		if all[name] == nil {
			all[name] = &granted{owner: store.Owner{Engine: store.EngineGrant, Tag: g.ID, Key: key}}
		}
		of := all[name]
		if !slices.Contains(of.same, g) {
			of.same = append(of.same, g)
		}
		of.owner.Expires = max(of.owner.Expires, g.ExpiresAt.Unix())
		of.clients = append(of.clients, slot)
	}
	for _, in := range d.xray.Inbounds {
		for i := range in.Clients {
			add(in.Clients[i].Key, in.Clients[i].Grant, in.Clients[i].Slot)
		}
	}
	for _, in := range d.mtproto.Inbounds {
		for _, c := range in.Clients {
			add(c.ID, c.Grant, c.Slot)
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *granted) int {
		return cmp.Or(cmp.Compare(a.owner.Key, b.owner.Key), cmp.Compare(a.owner.Tag, b.owner.Tag))
	})
}

// assignGrantsLocked gives each grant of d, whose clients have their slots, its own slot.
func (a *Agent) assignGrantsLocked(d desired) (owners []store.Owner, slots []uint32, err error) {
	return a.assignSlotsLocked(d.granted())
}

// assignSlotsLocked gives each of the grants its slot.
func (a *Agent) assignSlotsLocked(all []*granted) (owners []store.Owner, slots []uint32, err error) {
	if len(all) == 0 {
		return nil, nil, nil
	}
	for _, g := range all {
		owners = append(owners, g.owner)
	}
	if slots, err = a.store.Assign(owners); err != nil {
		return nil, nil, err
	}
	if err := a.counters.Grow(a.store.SlotCount()); err != nil {
		return nil, nil, err
	}
	starts := a.store.GrantStarts(a.counters, slots)
	for i, g := range all {
		for _, each := range g.same {
			// An engine may have this grant already, and reads it.
			if until := each.End(starts[i]); each.Slot != slots[i] || each.Until != until {
				each.Slot, each.Until = slots[i], until
			}
		}
	}
	return owners, slots, nil
}

// grantWatch knows the grants that the engines have, and which of them are over.
type grantWatch struct {
	mu   sync.Mutex
	all  map[string][]*granted // by the key of the person
	over map[[2]string]bool    // by id and key, those that look found over
	// hasten has the slots of clients whose rows are due, and when.
	hasten map[uint32]time.Time
}

// set takes the grants of the configuration that runs.
func (w *grantWatch) set(all []*granted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = make(map[string][]*granted, len(all))
	over := map[[2]string]bool{}
	for _, g := range all {
		w.all[g.owner.Key] = append(w.all[g.owner.Key], g)
		if w.over[g.name()] {
			over[g.name()] = true
		}
	}
	w.over = over
}

// change takes the grants of some persons; nil for one who has none.
func (w *grantWatch) change(persons map[string]*granted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all, w.over = map[string][]*granted{}, map[[2]string]bool{}
	}
	for key, g := range persons {
		for _, was := range w.all[key] {
			if g == nil || was.name() != g.name() {
				delete(w.over, was.name())
			}
		}
		if g == nil {
			delete(w.all, key)
		} else {
			w.all[key] = []*granted{g}
		}
	}
}

// look returns the slots of clients whose rows are due.
func (w *grantWatch) look(counters Counters, now time.Time) (due []uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range w.all {
		for _, g := range of {
			due = append(due, w.lookAtLocked(g, counters, now)...)
		}
	}
	for slot, at := range w.hasten {
		if !now.Before(at) {
			due = append(due, slot)
			delete(w.hasten, slot)
		}
	}
	return due
}

// lookAtLocked returns the slots of the grant's clients where it is over since the last look.
func (w *grantWatch) lookAtLocked(g *granted, counters Counters, now time.Time) []uint32 {
	used, _ := counters.Read(g.same[0].Slot)
	was := w.over[g.name()]
	switch over := g.same[0].Over(used, now); {
	case over && !was:
		if w.hasten == nil {
			w.hasten = map[uint32]time.Time{}
		}
		w.over[g.name()] = true
		for _, slot := range g.clients {
			w.hasten[slot] = now.Add(lastBytes)
		}
		return g.clients
	case !over && was:
		delete(w.over, g.name())
	}
	return nil
}

// has reports whether a person has a grant.
func (w *grantWatch) has(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all[key]) > 0
}

// slotsOf returns the slots that count a person's grants.
func (w *grantWatch) slotsOf(key string) (slots []uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.all[key] {
		slots = append(slots, g.same[0].Slot)
	}
	return slots
}

// ended returns how many persons are ended by their grants.
func (w *grantWatch) ended(counters Counters, now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	persons := 0
	for _, of := range w.all {
		if slices.ContainsFunc(of, func(g *granted) bool {
			used, _ := counters.Read(g.same[0].Slot)
			return g.same[0].Over(used, now)
		}) {
			persons++
		}
	}
	return persons
}

// grantLoop makes rows as soon as a client is ended by its grant, so that Core can renew it.
func (a *Agent) grantLoop(ctx context.Context) {
	forget := time.Now().Add(forgetEvery)
	for wait.For(ctx, grantsEvery) {
		now := time.Now()
		if due := a.grants.look(a.counters, now); len(due) > 0 {
			a.hasten(ctx, now, due)
		}
		if !now.Before(forget) {
			a.forgetGrants(now)
			forget = now.Add(forgetEvery)
		}
	}
}

func (a *Agent) hasten(ctx context.Context, now time.Time, slots []uint32) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	a.mtproto.Collect(ctx)
	cancel()
	if err := a.store.Hasten(now, a.counters, slots); err != nil {
		// Nothing is lost: the next read of the counters reports it where it lasts.
		a.log.Error("make the rows of clients whose grants are over; their minute's end does", logkey.Error, err)
		return
	}
	a.courier.Wake()
}

// forgetGrants gives back the slots of grants that have expired and that no configuration names.
func (a *Agent) forgetGrants(now time.Time) {
	if !a.applying.TryLock() {
		return // an apply is running; there is another time
	}
	defer a.applying.Unlock()
	old := a.store.OldGrants(now.Add(-forgetEvery), a.inUse.has)
	if len(old) == 0 {
		return
	}
	if err := a.store.Release(now, a.counters, old); err != nil {
		a.log.Error("give back the counters of old grants; trying again", logkey.Error, err)
	}
}
