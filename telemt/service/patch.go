package service

import (
	"encoding/json"
	"slices"
	"strings"
)

// PatchClients returns the clients of an inbound, which is one of those that Parts has read, with
// the clients of put, and without those of drop. put can have others in the place of some of drop.
// come and gone are the clients that differ. ok is false where one of put would be refused, or has
// the id or the secret of a client that stays, or where one of drop is not there.
func (in Inbound) PatchClients(put []json.RawMessage, drop map[string]bool) (clients, come, gone []Client, ok bool) {
	come, refused := parseClients(in.Tag, put)
	if len(refused) > 0 {
		return nil, nil, nil, false
	}
	ids, secrets := make(map[string]bool, len(come)), make(map[string]bool, len(come))
	for _, c := range come {
		ids[c.ID], secrets[strings.ToLower(c.Secret)] = true, true
	}
	clients = make([]Client, 0, len(in.Clients)+len(come))
	for _, c := range in.Clients {
		if drop[c.ID] {
			gone = append(gone, c)
			continue
		}
		if ids[c.ID] || secrets[strings.ToLower(c.Secret)] {
			return nil, nil, nil, false
		}
		clients = append(clients, c)
	}
	clients = sortedByID(append(clients, come...))
	return clients, come, gone, len(gone) == len(drop) && len(clients) <= MaxClients
}

// sortedByID sorts clients in place: another order of one list is the same inbound.
func sortedByID(clients []Client) []Client {
	slices.SortFunc(clients, func(a, b Client) int { return strings.Compare(a.ID, b.ID) })
	return clients
}
