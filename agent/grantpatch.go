package agent

import (
	"maps"
	"slices"
	"strings"

	"nodeagent/internal/grant"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// grantPatch is what a patch changes in the grants of persons.
type grantPatch struct {
	// persons are those whose grant changes, or some of whose clients do, by the key in the client map.
	persons map[string]*person
	come    map[string]map[string]*state.Client // of Xray, by tag and key
}

// person is somebody with a grant, or who had one.
type person struct {
	before []*grant.Grant // of clients that go
	now    *grant.Grant   // nil for none

	members []member
}

// member is a client of a person on one inbound.
type member struct {
	grant **grant.Grant // of the client
	slot  *uint32
	own   *grant.Grant // that the client came with
	// unsure says that nothing tells whether the client came with its grant.
	unsure bool
	client *state.Client // nil for MTProto
	shared bool          // other states have the client too
	tag    string
	at     int // in the list of the inbound
}

// of returns a person whose grant is looked at.
func (g *grantPatch) of(key string) *person {
	if g.persons == nil {
		g.persons = map[string]*person{}
	}
	if g.persons[key] == nil {
		g.persons[key] = &person{}
	}
	return g.persons[key]
}

// takeXray notes the clients of an inbound that come and go. granted reports whether a person has a grant.
func (g *grantPatch) takeXray(tag string, patched parse.Patched, granted func(key string) bool) {
	g.come[tag] = make(map[string]*state.Client, len(patched.Come))
	for _, c := range patched.Come {
		g.come[tag][c.Key] = c
		if c.Reading.Granted || granted(c.Key) {
			g.of(c.Key)
		}
	}
	for _, c := range patched.Gone {
		if c.Grant != nil {
			g.of(c.Key).before = append(g.of(c.Key).before, c.Grant)
		}
	}
}

// takeMTProto is takeXray for an MTProto inbound.
func (g *grantPatch) takeMTProto(come, gone []service.Client, granted func(key string) bool) {
	for _, c := range come {
		if c.Grant != nil || granted(c.ID) {
			g.of(c.ID)
		}
	}
	for _, c := range gone {
		if c.Grant != nil {
			g.of(c.ID).before = append(g.of(c.ID).before, c.Grant)
		}
	}
}

// shareGrants gives the clients of each person of p.grants the person's grant, as desired.shareGrants does
// for all persons. serves reports whether an inbound of Xray has a client of a person that is not one of
// those that come. It returns false where only the whole document tells, as where two clients of a person
// name two grants, so that one of them is refused.
func (p *patch) shareGrants(serves func(tag, key string) bool) bool {
	if len(p.grants.persons) == 0 {
		return true
	}
	for _, tag := range p.next.xray.Tags() {
		if !p.findXray(tag, serves) {
			return false
		}
	}
	for i := range p.next.mtproto.Inbounds {
		p.findMTProto(i)
	}
	for _, of := range p.grants.persons {
		if !of.choose() {
			return false
		}
		for _, m := range of.members {
			if *m.grant != of.now {
				p.give(m, of.now)
			}
		}
	}
	return true
}

// findXray finds the clients of the persons on an inbound. All of its clients are looked at only where one
// of a person stays on it while others come, go or change: our Core changes the grant of all.
func (p *patch) findXray(tag string, serves func(tag, key string) bool) bool {
	stay := map[string]bool{}
	for key, of := range p.grants.persons {
		if c := p.grants.come[tag][key]; c != nil {
			of.members = append(of.members, xrayMember(tag, c))
		} else if serves(tag, key) {
			stay[key] = true
		}
	}
	if len(stay) == 0 {
		return true
	}
	for at, c := range p.next.xray.Inbounds[tag].Clients {
		if !stay[c.Key] {
			continue
		}
		m := xrayMember(tag, c)
		m.shared, m.at = true, at
		of := p.grants.persons[c.Key]
		of.members = append(of.members, m)
		delete(stay, c.Key)
	}
	return len(stay) == 0
}

func xrayMember(tag string, c *state.Client) member {
	m := member{grant: &c.Grant, slot: &c.Slot, client: c, tag: tag}
	if c.Reading.Granted {
		m.own = c.Grant
	}
	return m
}

// findMTProto finds the clients of the persons on an MTProto inbound.
func (p *patch) findMTProto(i int) {
	in := &p.next.mtproto.Inbounds[i]
	come, patched := p.mtprotoCome[in.Tag]
	for _, key := range slices.Sorted(maps.Keys(p.grants.persons)) {
		at, is := slices.BinarySearchFunc(in.Clients, key, func(c service.Client, id string) int { return strings.Compare(c.ID, id) })
		if !is {
			continue
		}
		if !patched { // the list is that of the configuration that runs
			in.Clients, patched = slices.Clone(in.Clients), true
		}
		c := &in.Clients[at]
		m := member{grant: &c.Grant, slot: &c.Slot, own: c.Grant}
		if !come[key] {
			m.own, m.unsure = nil, c.Grant != nil
		}
		of := p.grants.persons[key]
		of.members = append(of.members, m)
	}
}

// choose sets the person's grant: the one that clients came with. Where it is the same as before, it is the
// same object, which has a slot. It returns false where clients disagree.
func (of *person) choose() bool {
	before := slices.Clone(of.before)
	for _, m := range of.members {
		if m.own != nil && of.now != nil && !of.now.Same(m.own) {
			return false
		}
		if m.own != nil && of.now == nil {
			of.now = m.own
		}
		if m.shared || m.unsure {
			before = append(before, *m.grant)
		}
	}
	for _, m := range of.members {
		if m.unsure && (of.now == nil || !of.now.Same(*m.grant)) {
			return false
		}
	}
	for _, g := range before {
		if g != nil && of.now != nil && g.Same(of.now) {
			of.now = g
			break
		}
	}
	return true
}

// give gives a client a grant, or takes it. A client that other states share is copied.
func (p *patch) give(m member, g *grant.Grant) {
	*p.writable(&m) = g
	if m.client == nil {
		return
	}
	if m.client.Group = ""; m.client.Bounded() {
		m.client.Group = parse.GroupOf(m.client.Key)
	}
}

// writable returns where the grant of a client can be written.
func (p *patch) writable(m *member) **grant.Grant {
	if !m.shared {
		return m.grant
	}
	in := p.next.xray.Inbounds[m.tag].Changed()
	if p.grants.come[m.tag] == nil { // the list is that of the configuration that runs
		in.Clients = slices.Clone(in.Clients)
		p.grants.come[m.tag] = map[string]*state.Client{}
	}
	p.next.xray.Inbounds[m.tag] = in
	next := *in.Clients[m.at]
	in.Clients[m.at], m.client = &next, &next
	return &next.Grant
}

// changeGrantsLocked gives the grants of a patch, whose clients have their slots, their slots, and changes
// the set of slots that are in use after the patch.
func (a *Agent) changeGrantsLocked(p *patch, inUse slotSet) (err error) {
	p.granted = make(map[string]*granted, len(p.grants.persons))
	var all []*granted
	for key, of := range p.grants.persons {
		p.granted[key] = nil
		for _, slot := range a.grants.slotsOf(key) {
			inUse.remove(slot)
		}
		if of.now == nil {
			continue
		}
		g := &granted{owner: store.Owner{Engine: store.EngineGrant, Tag: of.now.ID, Key: key, Expires: of.now.ExpiresAt.Unix()}, same: []*grant.Grant{of.now}}
		for _, m := range of.members {
			g.clients = append(g.clients, *m.slot)
		}
		p.granted[key], all = g, append(all, g)
	}
	var slots []uint32
	p.grantOwners, slots, err = a.assignSlotsLocked(all)
	for _, slot := range slots {
		inUse.add(slot)
	}
	return err
}
