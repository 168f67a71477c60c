package parse

import (
	"encoding/json"
	"slices"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// Patch is what differs in the list of clients of an inbound.
type Patch struct {
	Put  []json.RawMessage // clients that come, also in the place of another one with the same key
	Drop []string          // keys of clients that go, or whose place another one takes
}

// Patched is an inbound with other clients.
type Patched struct {
	Inbound    state.Inbound
	Come, Gone state.Clients
}

// PatchInbound changes the list of clients of an inbound that Parts has read, in a time that depends on the
// change, but for one look at each client, and for accounts, which are written into Config again. ok
// is false where the change is none for which the result is surely that of Parts for the whole
// document: then Parts has to read it. That is so where a client would be refused or tied to no
// entry of the client map, and where the inbound has accounts or peers that belong to no client.
func PatchInbound(in state.Inbound, patch Patch, inClientMap func(string) bool) (p Patched, ok bool) {
	protocol := state.Protocols[in.Protocol]
	if !protocol.KnowsClients() || len(in.Clients) == 0 || len(in.Unattributed) > 0 || in.NodeProtocolID == 0 {
		return p, false
	}
	put, ok := readPut(in, patch.Put, inClientMap)
	if !ok {
		return p, false
	}
	drop := make(map[string]bool, len(patch.Drop))
	for _, key := range patch.Drop {
		drop[key] = true
	}
	stay := in.Clients
	if len(drop) > 0 {
		stay, p.Gone = split(in.Clients, drop)
	}
	if len(p.Gone) != len(drop) || put.anyUUID(stay) {
		return p, false
	}
	p.Come = state.SortClients(put.clients)
	p.Inbound = in.WithClients(stay.With(p.Come), p.Come)
	if len(p.Inbound.Clients) != len(stay)+len(p.Come) {
		return p, false
	}
	if protocol.AccountsAt() != "" {
		var err error
		p.Inbound, err = p.Inbound.WithAccountsOfClients()
		return p, err == nil
	}
	return p, true
}

// split parts the clients by whether drop has their keys.
func split(clients state.Clients, drop map[string]bool) (stay, gone state.Clients) {
	stay = make(state.Clients, 0, len(clients))
	for _, c := range clients {
		if drop[c.Key] {
			gone = append(gone, c)
		} else {
			stay = append(stay, c)
		}
	}
	return stay, gone
}

// anyUUID reports whether one of the clients has a UUID of those that come.
func (put comers) anyUUID(clients state.Clients) bool {
	if len(put.uuids) == 1 { // as mostly: a comparison costs less than a look into a map
		var hash uint64
		for hash = range put.uuids {
		}
		return slices.ContainsFunc(clients, func(c *state.Client) bool { return c.Reading.UUIDHash == hash })
	}
	return len(put.uuids) > 0 && slices.ContainsFunc(clients, func(c *state.Client) bool { return put.uuids[c.Reading.UUIDHash] })
}

// comers are the clients of Patch.Put.
type comers struct {
	clients []state.Client
	uuids   map[uint64]bool // Reading.UUIDHash of each
}

// readPut reads the clients that come. ok is false where one of them cannot be read as Parts would
// read it, or two have one key or UUID.
func readPut(in state.Inbound, put []json.RawMessage, inClientMap func(string) bool) (read comers, ok bool) {
	read = comers{make([]state.Client, len(put)), make(map[uint64]bool, len(put))}
	reader := clientReader{MemberReader: rawjson.NewMemberReader(), in: in, inClientMap: inClientMap}
	keys := make(map[string]bool, len(put))
	one := func(raw json.RawMessage, c *state.Client) (err error) {
		if state.Protocols[in.Protocol].UserManager && in.Protocol != "wireguard" {
			_, err = reader.client(raw, c)
			return err
		}
		var entry map[string]json.RawMessage
		if err = json.Unmarshal(raw, &entry); err == nil {
			*c, err = parseAccount(in, entry, inClientMap)
		}
		return err
	}
	for i, raw := range put {
		c := &read.clients[i]
		if err := one(raw, c); err != nil || !c.Reading.Settled || keys[c.Key] {
			return read, false
		}
		keys[c.Key] = true
		if hash := c.Reading.UUIDHash; hash != 0 {
			if read.uuids[hash] {
				return read, false
			}
			read.uuids[hash] = true
		}
	}
	return read, true
}
