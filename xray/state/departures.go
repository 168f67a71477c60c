package state

import "slices"

// ClientsLeaving returns the clients of s whose streams end with the operation.
func ClientsLeaving(s State, op Operation) Clients {
	var missing Clients
	switch op.Kind {
	case OpRemoveUsers:
		for _, email := range op.Emails {
			if client := s.Inbounds[op.Tag].Clients.Find(email); client != nil {
				missing = append(missing, client)
			}
		}
	case OpRemoveInbound, OpReplaceInbound:
		if clients := s.Inbounds[op.Tag].Clients; len(clients) > 0 {
			missing = slices.Collect(clients.NotIn(SortClients(op.Users)))
		}
	case OpAddInbound, OpPrepareInbound, OpOpenInbound, OpReleaseInbound, OpAddUsers, OpUpdateUsers, OpPutOutbound, OpRemoveOutbound, OpDefaultOutbound, OpSetRouting, OpSetPolicy, OpSetDNS:
	}
	return missing
}

// ClientsGone returns, by the inbound's tag, the clients that from has and to has not. A client
// with another account has another Email.
func ClientsGone(from, to State) map[string]Clients {
	missing := map[string]Clients{}
	for tag, in := range from.Inbounds {
		gone, come := Apart(in, to.Inbounds[tag])
		if clients := slices.Collect(gone.NotIn(come)); len(clients) > 0 {
			missing[tag] = clients
		}
	}
	return missing
}

// SlotsOf returns the slot of each client.
func SlotsOf(clients Clients) []uint32 {
	slots := make([]uint32, len(clients))
	for i, client := range clients {
		slots[i] = client.Slot
	}
	return slots
}
