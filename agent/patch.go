package agent

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	jsonv1 "github.com/go-json-experiment/json/v1"

	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/store"
	"nodeagent/telemt/service"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// patch is what a delta of clients changes in what runs.
type patch struct {
	next desired
	// owners are those of the clients that come, and then those that only get another attribution.
	// places are where the slots of the first belong.
	owners     []store.Owner
	places     []*uint32
	gone       []uint32 // slots
	print      []byte   // fingerprints of the clients that come, for store.Change
	goneprints []byte

	grants      grantPatch
	mtprotoCome map[string]map[string]bool // keys, by the tag of an inbound that changes
	// grantOwners are the owners of the grants that the patch changes. granted has these grants by their
	// persons' keys, for grantWatch.
	grantOwners []store.Owner
	granted     map[string]*granted
}

// onlyClients reports whether a delta changes nothing but clients of inbounds and entries of
// clientMap.
func onlyClients(d *delta.Delta) bool {
	if !d.Members.IsZero() {
		return false
	}
	for name, service := range d.Services {
		if clientKinds[name] == "" || service.Removed || service.Whole != nil || !service.Members.IsZero() {
			return false
		}
		tags := map[string]bool{}
		for _, in := range service.Inbounds {
			if in.Removed || in.Inbound != nil || tags[in.Tag] {
				return false
			}
			tags[in.Tag] = true
		}
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
// document. inUse reports whether an owner has a slot that counts, and granted whether a person has a
// grant. ok is false where the delta alone does not tell the next state: the whole document has
// to be parsed.
func newPatch(running desired, d *delta.Delta, h *held, inUse func(store.Owner) bool, granted func(key string) bool) (p *patch, ok bool) {
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
	p = &patch{next: running, mtprotoCome: map[string]map[string]bool{}}
	p.grants.come = map[string]map[string]*state.Client{}
	p.next.revision = d.Revision
	p.next.clientMap = running.clientMap.with(refs, d.ClientMap.Removed)
	p.next.mtprotoClients = p.next.clientMap
	p.next.xray.Inbounds = maps.Clone(running.xray.Inbounds)
	p.next.mtproto.Inbounds = slices.Clone(running.mtproto.Inbounds)
	dropped := map[clientList]map[string]bool{} // keys
	for name, service := range d.Services {
		for _, c := range service.Inbounds {
			of := clientList{clientKinds[name], c.Tag}
			keys, ok := patchKeysOf(c.Clients)
			if !ok {
				return nil, false
			}
			dropped[of] = keys.drop
			patched := p.patchXray
			if of.kind == delta.MTProtoClient {
				patched = p.patchMTProto
			}
			if !patched(c, keys, h.clients[of], granted) {
				return nil, false
			}
		}
	}
	serves := func(tag, key string) bool {
		return !dropped[clientList{delta.XrayClient, tag}][key] && inUse(store.Owner{Engine: store.EngineXray, Tag: tag, Key: key})
	}
	if !p.attribute(d, dropped, inUse) || !p.shareGrants(serves) {
		return nil, false
	}
	with, err := parse.WithUsers(p.next.xray, running.routing)
	if err != nil {
		return nil, false
	}
	p.next.xray = with
	return p, true
}

// patchKeys are the keys of the clients of one inbound in a delta.
type patchKeys struct {
	put  map[string]json.RawMessage
	drop map[string]bool // those that go, and those in whose place another one comes
}

func patchKeysOf(c delta.Clients) (keys patchKeys, ok bool) {
	added, err1 := byKey(c.Added)
	changed, err2 := byKey(c.Changed)
	if err1 != nil || err2 != nil {
		return keys, false
	}
	keys = patchKeys{added, make(map[string]bool, len(c.Removed)+len(changed))}
	for key, raw := range changed {
		keys.put[key], keys.drop[key] = raw, true
	}
	for _, key := range c.Removed {
		keys.drop[key] = true
	}
	return keys, len(keys.put) == len(c.Added)+len(c.Changed) && len(keys.drop) == len(c.Removed)+len(c.Changed)
}

// patchXray changes the clients of an inbound of Xray, which has so many in the document.
func (p *patch) patchXray(c delta.InboundDelta, keys patchKeys, inDocument int, granted func(key string) bool) (ok bool) {
	in, runs := p.next.xray.Inbounds[c.Tag]
	if !runs || inDocument != len(in.Clients) {
		return false
	}
	put := slices.Collect(maps.Values(keys.put))
	patched, ok := parse.PatchInbound(in, parse.Patch{Put: put, Drop: slices.Collect(maps.Keys(keys.drop))}, p.next.clientMap.has)
	if !ok {
		return false
	}
	p.grants.takeXray(c.Tag, patched, granted)
	in = patched.Inbound
	p.next.xray.Inbounds[c.Tag] = in
	for _, client := range patched.Come {
		if keys.put[client.Key] == nil { // parse takes another text for the key than the delta does
			return false
		}
		p.owners = append(p.owners, clientOwner(store.EngineXray, in.Tag, client.Key, in.NodeProtocolID, in.VPNProtocol, p.next.clientMap))
		p.places = append(p.places, &client.Slot)
		p.print = appendPrint(p.print, xrayFingerprint(in.Tag, client))
	}
	for _, client := range patched.Gone {
		p.gone = append(p.gone, client.Slot)
		p.goneprints = appendPrint(p.goneprints, xrayFingerprint(in.Tag, client))
	}
	return true
}

// patchMTProto changes the clients of an MTProto inbound, which has so many in the document.
func (p *patch) patchMTProto(c delta.InboundDelta, keys patchKeys, inDocument int, granted func(key string) bool) (ok bool) {
	at := slices.IndexFunc(p.next.mtproto.Inbounds, func(in service.Inbound) bool { return in.Tag == c.Tag })
	if at < 0 || inDocument != len(p.next.mtproto.Inbounds[at].Clients) {
		return false
	}
	in := &p.next.mtproto.Inbounds[at]
	put := slices.Collect(maps.Values(keys.put))
	clients, come, gone, ok := in.PatchClients(put, keys.drop)
	if !ok {
		return false
	}
	in.Clients = clients
	p.grants.takeMTProto(come, gone, granted)
	p.mtprotoCome[in.Tag] = make(map[string]bool, len(come))
	for _, client := range come {
		if keys.put[client.ID] == nil || !p.next.clientMap.has(client.ID) {
			return false
		}
		p.mtprotoCome[in.Tag][client.ID] = true
		place, _ := slices.BinarySearchFunc(clients, client.ID, func(c service.Client, id string) int { return strings.Compare(c.ID, id) })
		p.owners = append(p.owners, clientOwner(store.EngineTelemt, in.Tag, client.ID, in.NodeProtocolID, string(wire.ProtocolMTProto), p.next.clientMap))
		p.places = append(p.places, &clients[place].Slot)
		p.print = appendPrint(p.print, fingerprint(in.Tag, client.ID, client.Secret))
	}
	for _, client := range gone {
		p.gone = append(p.gone, client.Slot)
		p.goneprints = appendPrint(p.goneprints, fingerprint(in.Tag, client.ID, client.Secret))
	}
	return true
}

// attribute adds the owners that stay and belong to somebody else now. It returns false where a
// client that stays loses its entry of the client map: it may have another key then.
func (p *patch) attribute(d *delta.Delta, dropped map[clientList]map[string]bool, inUse func(store.Owner) bool) bool {
	for _, in := range p.next.xray.Inbounds {
		dropped := dropped[clientList{delta.XrayClient, in.Tag}]
		owner := func(key string) store.Owner {
			return clientOwner(store.EngineXray, in.Tag, key, in.NodeProtocolID, in.VPNProtocol, p.next.clientMap)
		}
		for _, key := range d.ClientMap.Removed {
			if !dropped[key] && inUse(owner(key)) {
				return false
			}
		}
		for key := range d.ClientMap.Changed {
			if o := owner(key); !dropped[key] && inUse(o) {
				p.owners = append(p.owners, o)
			}
		}
	}
	for _, in := range p.next.mtproto.Inbounds {
		if len(d.ClientMap.Removed)+len(d.ClientMap.Changed) == 0 {
			break
		}
		of := clientList{delta.MTProtoClient, in.Tag}
		for _, c := range in.Clients {
			if slices.Contains(d.ClientMap.Removed, c.ID) {
				return false
			}
			if d.ClientMap.Changed[c.ID] != nil && !dropped[of][c.ID] {
				p.owners = append(p.owners, clientOwner(store.EngineTelemt, in.Tag, c.ID, in.NodeProtocolID, string(wire.ProtocolMTProto), p.next.clientMap))
			}
		}
	}
	return true
}
