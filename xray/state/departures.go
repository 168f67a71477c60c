package state

// ClientsLeaving returns the clients of s whose streams end with the operation.
func ClientsLeaving(s State, op Operation) []Client {
	var missing []Client
	switch op.Kind {
	case OpRemoveUsers:
		for _, email := range op.Emails {
			if client := s.Inbounds[op.Tag].Clients.Find(email); client != nil {
				missing = append(missing, *client)
			}
		}
	case OpRemoveInbound, OpReplaceInbound:
		missing = clientsNotIn(s.Inbounds[op.Tag].Clients, op.Users)
	case OpAddInbound, OpReleaseInbound, OpAddUsers, OpUpdateUsers, OpPutOutbound, OpRemoveOutbound, OpDefaultOutbound, OpSetRouting, OpSetPolicy, OpSetDNS:
	}
	return missing
}

// ClientsGone returns, by the inbound's tag, the clients that from has and to has not.
func ClientsGone(from, to State) map[string][]Client {
	missing := map[string][]Client{}
	for tag, in := range from.Inbounds {
		if clients := clientsNotIn(in.Clients, to.Inbounds[tag].Clients); len(clients) > 0 {
			missing[tag] = clients
		}
	}
	return missing
}

// clientsNotIn returns the clients whose Email is not among others. A client with another
// account has another Email.
func clientsNotIn(clients, others Clients) []Client {
	var missing []Client
	for _, client := range clients {
		for len(others) > 0 && others[0].Email < client.Email {
			others = others[1:]
		}
		if len(others) == 0 || others[0].Email != client.Email {
			missing = append(missing, client)
		}
	}
	return missing
}

// SlotsOf returns the slot of each client.
func SlotsOf(clients []Client) []uint32 {
	slots := make([]uint32, len(clients))
	for i, client := range clients {
		slots[i] = client.Slot
	}
	return slots
}
