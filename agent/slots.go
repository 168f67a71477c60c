package agent

import (
	"errors"
	"iter"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/store"
)

// counted yields each client and outbound that has a counter slot: its owner, and the place
// in d for the number of the slot. The order is always the same: the clients of Xray, the
// outbounds of Xray, the clients of MTProto.
func (d *desired) counted() iter.Seq2[store.Owner, *uint32] {
	return func(yield func(store.Owner, *uint32) bool) {
		for _, tag := range d.xray.Tags() {
			in := d.xray.Inbounds[tag]
			for i := range in.Clients {
				client := in.Clients[i]
				owner := clientOwner(store.EngineXray, in.Tag, client.Key, in.NodeProtocolID, in.VPNProtocol, d.clientMap)
				if !yield(owner, &client.Slot) {
					return
				}
			}
		}
		for i := range d.xray.Outbounds {
			out := &d.xray.Outbounds[i]
			if !yield(store.Owner{Engine: store.EngineXray, Tag: out.Tag}, &out.Slot) {
				return
			}
		}
		for _, in := range d.mtproto.Inbounds {
			for i := range in.Clients {
				client := &in.Clients[i]
				owner := clientOwner(store.EngineTelemt, in.Tag, client.ID, in.NodeProtocolID, string(wire.ProtocolMTProto), d.mtprotoClients)
				if !yield(owner, &client.Slot) {
					return
				}
			}
		}
	}
}

// clientOwner returns the owner of a client's slot on one inbound. clients is the client map.
// A client that it does not name is served, and attributed to no user.
func clientOwner(engine, tag, key string, nodeProtocolID int64, protocol string, clients clientMap) store.Owner {
	owner := store.Owner{Engine: engine, Tag: tag, Key: key}
	if ref, known := clients.find(key); known {
		owner.Attribution = &store.Attribution{
			UserID: ref.UserID, SubscriptionID: ref.SubscriptionID, NodeProtocolID: nodeProtocolID, Protocol: protocol,
		}
	}
	return owner
}

// assignAgainLocked is assignLocked for what the store has: where each client has a slot, no
// attribution is made, because none is stored.
func (a *Agent) assignAgainLocked(d desired) (inUse slotSet, err error) {
	bare := d
	bare.clientMap, bare.mtprotoClients = clientMap{}, clientMap{}
	for owner, place := range bare.counted() {
		slot, known := *place, a.store.Owns(owner, *place) // as it was parsed before
		if !known {
			slot, known = a.store.Slot(owner)
		}
		if !known {
			_, inUse, err = a.assignLocked(d)
			return inUse, err
		}
		*place = slot
		inUse.add(slot)
	}
	_, slots, err := a.assignGrantsLocked(d)
	for _, slot := range slots {
		inUse.add(slot)
	}
	return inUse, errors.Join(err, a.counters.Grow(a.store.SlotCount()))
}

// assignLocked gives each client and outbound of d its slot, and makes room for the slots in
// the counters file. It returns the owners, and the set of their slots.
func (a *Agent) assignLocked(d desired) (owners []store.Owner, inUse slotSet, err error) {
	owners = make([]store.Owner, 0, d.clients()+len(d.xray.Outbounds))
	places := make([]*uint32, 0, cap(owners))
	for owner, place := range d.counted() {
		owners, places = append(owners, owner), append(places, place)
	}
	slots, err := a.store.Assign(owners)
	if err != nil {
		return nil, nil, err
	}
	if err := a.counters.Grow(a.store.SlotCount()); err != nil {
		return nil, nil, err
	}
	for i, slot := range slots {
		if *places[i] != slot { // a client that runs has its slot, and an engine may read it
			*places[i] = slot
		}
		inUse.add(slot)
	}
	grants, slots, err := a.assignGrantsLocked(d)
	for _, slot := range slots {
		inUse.add(slot)
	}
	return append(owners, grants...), inUse, err
}

// runsLocked notes that the engines have d, whose slots are inUse.
func (a *Agent) runsLocked(d desired, inUse slotSet) {
	a.inUse, a.running = inUse, d
	a.grants.set(d.granted())
}

// releaseUnusedLocked gives back the slots that the restored configuration does not use. No
// engine counts yet.
func (a *Agent) releaseUnusedLocked() {
	var unused []uint32
	for _, slot := range a.store.Slots() {
		if a.inUse.has(slot) {
			continue
		}
		if owner, _ := a.store.Owner(slot); owner.Engine != store.EngineGrant { // grants are remembered: see forgetGrants
			unused = append(unused, slot)
		}
	}
	if len(unused) == 0 {
		return
	}
	a.inbox.sessionsEnd(unused) // first: a released slot can get another owner, and telemt's sessions of the daemon before are open
	if err := a.store.Release(time.Now(), a.counters, unused); err != nil {
		a.log.Error("give back counter slots", logkey.Error, err)
	}
}

// releaseClosed gives back the slots of removed clients that no engine counts to any more,
// but for those that a newer configuration uses again.
func (a *Agent) releaseClosed() {
	if !a.applying.TryLock() {
		return // an apply is running; the next read of the counters calls this again
	}
	defer a.applying.Unlock()
	var gone []uint32
	for _, slot := range a.inbox.takeClosed() {
		if !a.inUse.has(slot) {
			gone = append(gone, slot)
		}
	}
	if len(gone) == 0 {
		return
	}
	if err := a.store.Release(time.Now(), a.counters, gone); err != nil {
		a.log.Error("give back counter slots; trying again at the next read", logkey.Error, err)
		a.inbox.addClosed(gone)
	}
}
