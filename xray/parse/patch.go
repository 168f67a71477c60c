package parse

import (
	"encoding/json"

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

// PatchInbound changes the list of clients of an inbound that Parts has read. Its time depends on the change. Three
// steps depend on the whole list: the copy of the list, the search for clients that go, and accounts, which
// PatchInbound writes into Config again. ok is false where the change is none for which the result is surely that of
// Parts for the whole document: then Parts has to read it. That is so where a client would be refused or
// tied to no entry of the client map, and where the inbound has accounts or peers that belong to no client.
func PatchInbound(in state.Inbound, patch Patch, inClientMap func(string) bool) (p Patched, ok bool) {
	protocol := state.Protocols[in.Protocol]
	if !protocol.KnowsClients() || len(in.Clients) == 0 || len(in.Unattributed) > 0 || in.NodeProtocolID == 0 {
		return p, false
	}
	put, ok := readPut(in, patch.Put, inClientMap)
	if !ok {
		return p, false
	}
	if p.Gone, ok = clientsOf(in.Clients, patch.Drop); !ok || put.anyUUID(in, p.Gone) {
		return p, false
	}
	p.Come = state.SortClients(put.clients)
	if p.Inbound, ok = in.Change(p.Gone, p.Come); !ok || len(p.Come) != len(put.clients) {
		return p, false
	}
	if protocol.AccountsAt() != "" {
		var err error
		p.Inbound, err = p.Inbound.WithAccountsOfClients()
		return p, err == nil
	}
	return p, true
}

// clientsOf returns the clients with the keys, sorted by Email. It returns false where one is missing.
func clientsOf(clients state.Clients, keys []string) (of state.Clients, all bool) {
	if len(keys) == 0 {
		return nil, true
	}
	of = make(state.Clients, 0, len(keys))
	if len(keys) == 1 { // a comparison costs less than a look into a map
		for _, c := range clients {
			if c.Key == keys[0] {
				of = append(of, c)
			}
		}
		return of, len(of) == 1
	}
	wanted := make(map[string]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	for _, c := range clients {
		if wanted[c.Key] {
			of = append(of, c)
		}
	}
	return of, len(of) == len(wanted)
}

// anyUUID reports whether a client that stays has a UUID of those that come.
func (put comers) anyUUID(in state.Inbound, gone state.Clients) bool {
	left := make(map[uint64]bool, len(gone)) // no other client has their UUIDs
	for _, c := range gone {
		left[c.Reading.UUIDHash] = true
	}
	return in.HasUUID(func(yield func(uint64) bool) {
		for hash := range put.uuids {
			if !left[hash] && !yield(hash) {
				return
			}
		}
	})
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
