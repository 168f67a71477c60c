package agent

import (
	"encoding/json"
	"maps"
	"slices"

	jsonv1 "github.com/go-json-experiment/json/v1"

	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/store"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// patch is what a delta of clients changes in what runs.
type patch struct {
	next desired
	come []*state.Client // they have no slots yet
	// owners are those of come, in their order, and then those that only get another attribution.
	owners     []store.Owner
	gone       state.Clients
	print      []byte // fingerprints of come, for store.Change
	goneprints []byte
}

// onlyClients reports whether a delta changes nothing but clients of Xray's inbounds and entries of
// clientMap.
func onlyClients(d *delta.Delta) bool {
	xray, has := d.Services[delta.Xray]
	if !d.Members.IsZero() || len(d.Services) > 1 || len(d.Services) == 1 && !has || xray.Removed || xray.Whole != nil || !xray.Members.IsZero() {
		return false
	}
	tags := map[string]bool{}
	for _, in := range xray.Inbounds {
		if in.Removed || in.Inbound != nil || tags[in.Tag] {
			return false
		}
		tags[in.Tag] = true
	}
	return true
}

// settles reports whether no client of d gets another key, or its first one, by an entry that comes
// into the client map.
func (d *desired) settles() bool {
	for _, in := range d.xray.Inbounds {
		if slices.ContainsFunc(in.Clients, func(c *state.Client) bool { return !c.Reading.Settled }) {
			return false
		}
	}
	for _, in := range d.mtproto.Inbounds {
		for _, c := range in.Clients {
			if !d.clientMap.has(c.ID) {
				return false
			}
		}
	}
	return true
}

// newPatch returns what the delta, for which onlyClients is true, makes of running, a whole
// document. inUse reports whether an owner has a slot that counts, and granted has the keys of clients
// with a grant. ok is false where only the
// whole document tells what comes of it.
func newPatch(running desired, d *delta.Delta, h *held, inUse func(store.Owner) bool, granted map[string]bool) (p *patch, ok bool) {
	if len(running.unreadable) > 0 || running.mtprotoRefused || h.entries != running.clientMap.length {
		return nil, false
	}
	refs := map[string]wire.ClientRef{}
	for _, entries := range []map[string]json.RawMessage{d.ClientMap.Added, d.ClientMap.Changed} {
		for key, raw := range entries {
			var ref wire.ClientRef
			if jsonv1.Unmarshal(raw, &ref) != nil {
				return nil, false
			}
			refs[key] = ref
		}
	}
	p = &patch{next: running}
	p.next.revision = d.Revision
	p.next.clientMap = running.clientMap.with(refs, d.ClientMap.Removed)
	p.next.mtprotoClients = p.next.clientMap
	p.next.xray.Inbounds = maps.Clone(running.xray.Inbounds)
	dropped := map[string]map[string]bool{} // keys, by inbound
	for _, c := range d.Services[delta.Xray].Inbounds {
		in, runs := running.xray.Inbounds[c.Tag]
		if !runs || h.clients[c.Tag] != len(in.Clients) {
			return nil, false
		}
		changed, err := byKey(c.Clients.Changed)
		if err != nil {
			return nil, false
		}
		drop := slices.AppendSeq(slices.Clone(c.Clients.Removed), maps.Keys(changed))
		patched, ok := parse.PatchInbound(in, parse.Patch{Put: slices.Concat(c.Clients.Added, c.Clients.Changed), Drop: drop}, p.next.clientMap.has)
		if !ok {
			return nil, false
		}
		if touchGrants(patched, granted) {
			return nil, false
		}
		p.next.xray.Inbounds[c.Tag] = patched.Inbound
		p.add(patched)
		dropped[c.Tag] = map[string]bool{}
		for _, key := range drop {
			dropped[c.Tag][key] = true
		}
	}
	if !p.attribute(d, dropped, inUse) {
		return nil, false
	}
	with, err := parse.WithUsers(p.next.xray, running.routing)
	if err != nil {
		return nil, false
	}
	p.next.xray = with
	return p, true
}

// touchGrants reports whether a client comes or goes that has a grant, or gets one: a grant holds on
// all inbounds of a person.
func touchGrants(p parse.Patched, granted map[string]bool) bool {
	return slices.ContainsFunc(p.Come, func(c *state.Client) bool { return c.Reading.Granted || granted[c.Key] }) ||
		slices.ContainsFunc(p.Gone, func(c *state.Client) bool { return c.Grant != nil })
}

// add adds the clients that come and go on one inbound.
func (p *patch) add(patched parse.Patched) {
	in := patched.Inbound
	for _, c := range patched.Come {
		p.come = append(p.come, c)
		p.owners = append(p.owners, clientOwner(store.EngineXray, in.Tag, c.Key, in.NodeProtocolID, in.VPNProtocol, p.next.clientMap))
		p.print = appendPrint(p.print, xrayFingerprint(in.Tag, c))
	}
	for _, c := range patched.Gone {
		p.goneprints = appendPrint(p.goneprints, xrayFingerprint(in.Tag, c))
	}
	p.gone = append(p.gone, patched.Gone...)
}

// attribute adds the owners that stay and belong to somebody else now. It returns false where a
// client that stays loses its entry of the client map: it may have another key then.
func (p *patch) attribute(d *delta.Delta, dropped map[string]map[string]bool, inUse func(store.Owner) bool) bool {
	for _, in := range p.next.xray.Inbounds {
		owner := func(key string) store.Owner {
			return clientOwner(store.EngineXray, in.Tag, key, in.NodeProtocolID, in.VPNProtocol, p.next.clientMap)
		}
		for _, key := range d.ClientMap.Removed {
			if !dropped[in.Tag][key] && inUse(owner(key)) {
				return false
			}
		}
		for key := range d.ClientMap.Changed {
			if o := owner(key); !dropped[in.Tag][key] && inUse(o) {
				p.owners = append(p.owners, o)
			}
		}
	}
	for _, in := range p.next.mtproto.Inbounds {
		for _, c := range in.Clients {
			if slices.Contains(d.ClientMap.Removed, c.ID) {
				return false
			}
			if d.ClientMap.Changed[c.ID] != nil {
				p.owners = append(p.owners, clientOwner(store.EngineTelemt, in.Tag, c.ID, in.NodeProtocolID, string(wire.ProtocolMTProto), p.next.clientMap))
			}
		}
	}
	return true
}
