package state

// ClientsLeaving returns the clients whose streams end with the operation.
func ClientsLeaving(s State, op Operation) []Client {
	var gone []Client
	switch op.Kind {
	case OpRemoveUsers:
		for _, email := range op.Emails {
			if client := s.Inbounds[op.Tag].Clients.Find(email); client != nil {
				gone = append(gone, *client)
			}
		}
	case OpRemoveInbound, OpReplaceInbound:
		gone = clientsNotIn(s.Inbounds[op.Tag].Clients, op.Users)
	case OpAddInbound, OpReleaseInbound, OpAddUsers, OpUpdateUsers, OpPutOutbound, OpRemoveOutbound, OpDefaultOutbound, OpSetRouting, OpSetPolicy, OpSetDNS:
	}
	return gone
}

// ClientsGone returns, by inbound, the clients that one state has and the other
// has not.
func ClientsGone(from, to State) map[string][]Client {
	gone := map[string][]Client{}
	for tag, in := range from.Inbounds {
		if clients := clientsNotIn(in.Clients, to.Inbounds[tag].Clients); len(clients) > 0 {
			gone[tag] = clients
		}
	}
	return gone
}

// clientsNotIn returns the clients that are not among the others, by name: another
// account is another name. Both are sorted.
func clientsNotIn(clients, others Clients) []Client {
	var gone []Client
	for _, client := range clients {
		for len(others) > 0 && others[0].Email < client.Email {
			others = others[1:]
		}
		if len(others) == 0 || others[0].Email != client.Email {
			gone = append(gone, client)
		}
	}
	return gone
}

// SlotsOf returns the slots of the clients, in their order.
func SlotsOf(clients []Client) []uint32 {
	slots := make([]uint32, len(clients))
	for i, client := range clients {
		slots[i] = client.Slot
	}
	return slots
}
