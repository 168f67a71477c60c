package agent

import (
	"maps"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// xrayOwners are those of the slots that the Xray worker counts to.
func (d *desired) xrayOwners() []store.Owner {
	owners := make([]store.Owner, 0, d.clients()+len(d.xray.Outbounds))
	for _, tag := range d.xray.Tags() {
		in := d.xray.Inbounds[tag]
		for _, client := range in.Clients {
			owners = append(owners, d.owner(store.SourceXray, in.Tag, client.Key, in.NodeProtocolID, in.VPNProtocol))
		}
	}
	for _, out := range d.xray.Outbounds {
		owners = append(owners, store.Owner{Source: store.SourceXray, Tag: out.Tag})
	}
	return owners
}

// telemtOwners are those of the slots that the MTProto engine counts to.
func (d *desired) telemtOwners() []store.Owner {
	var owners []store.Owner
	for _, in := range d.telemt.Inbounds {
		for _, client := range in.Clients {
			owners = append(owners, d.owner(store.SourceTelemt, in.Tag, client.ID, in.NodeProtocolID, string(wire.ProtocolMTProto)))
		}
	}
	return owners
}

// owner is whom a client of an inbound counts for, by the client map.
func (d *desired) owner(source, tag, key string, nodeProtocolID int64, protocol string) store.Owner {
	owner := store.Owner{Source: source, Tag: tag, Key: key}
	if ref, tied := d.config.ClientMap[key]; tied {
		owner.Attribution = &store.Attribution{
			UserID: ref.UserID, SubscriptionID: ref.SubscriptionID, NodeProtocolID: nodeProtocolID, Protocol: protocol,
		}
	}
	return owner
}

// slots are the places of the slots, in the order of the owners: those of
// xrayOwners, then those of telemtOwners.
func (d *desired) slots() []*uint32 {
	slots := make([]*uint32, 0, len(d.owners))
	for _, tag := range d.xray.Tags() {
		clients := d.xray.Inbounds[tag].Clients
		for i := range clients {
			slots = append(slots, &clients[i].Slot)
		}
	}
	for i := range d.xray.Outbounds {
		slots = append(slots, &d.xray.Outbounds[i].Slot)
	}
	for _, in := range d.telemt.Inbounds {
		for i := range in.Clients {
			slots = append(slots, &in.Clients[i].Slot)
		}
	}
	return slots
}

// assign gives every counter of the desired state its slot.
func (a *Agent) assign(d desired) (map[uint32]bool, error) {
	slots, err := a.store.Assign(d.owners)
	if err != nil {
		return nil, err
	}
	if err := a.counters.Grow(a.store.SlotCount()); err != nil {
		return nil, err
	}
	inUse := make(map[uint32]bool, len(slots))
	for i, place := range d.slots() {
		*place = slots[i]
		inUse[slots[i]] = true
	}
	return inUse, nil
}

func union(a, b map[uint32]bool) map[uint32]bool {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// forgetClosed drops what was closed before its client came back: it is counted
// to again, and another word will say when not.
func (a *Agent) forgetClosed(inUse map[uint32]bool) {
	a.closedMu.Lock()
	defer a.closedMu.Unlock()
	a.closed = slices.DeleteFunc(a.closed, func(slot uint32) bool { return inUse[slot] })
}

// releaseUnused gives back, at the start, the slots that the configuration does
// not name: nothing counts yet.
func (a *Agent) releaseUnused() {
	var unused []uint32
	for _, slot := range a.store.Slots() {
		if !a.inUse[slot] {
			unused = append(unused, slot)
		}
	}
	if err := a.store.Release(time.Now(), a.sources(), unused); err != nil {
		a.log.Error("give back counter slots", "error", err)
	}
}

// releaseClosed gives back the slots of removed clients, unless a newer
// configuration has the client again.
func (a *Agent) releaseClosed() {
	if !a.applying.TryLock() {
		return // an apply takes its time: the next read does it
	}
	defer a.applying.Unlock()
	a.closedMu.Lock()
	closed := a.closed
	a.closed = nil
	a.closedMu.Unlock()
	var gone []uint32
	for _, slot := range closed {
		if !a.inUse[slot] {
			gone = append(gone, slot)
		}
	}
	if len(gone) == 0 {
		return
	}
	if err := a.store.Release(time.Now(), a.sources(), gone); err != nil {
		a.log.Error("give back counter slots; trying again with the next read", "error", err)
		a.closedMu.Lock()
		a.closed = append(a.closed, gone...)
		a.closedMu.Unlock()
	}
}
