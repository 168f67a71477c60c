package xray

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/maphash"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// keyMembers are the members of a client that can tie it to the client map, in
// the contract's order.
var keyMembers = []string{"email", "id", "password", "auth"}

// limitMembers are ours, beside Xray's own, in a client object.
var limitMembers = []string{"limitIps", "limitConnections", "rateUpBitsPerSecond", "rateDownBitsPerSecond"}

// takeClients moves the clients out of an inbound's members, so that what is
// left can be compared without them.
func takeClients(in *Inbound, members map[string]json.RawMessage, inClientMap func(string) bool) (Clients, error) {
	if !KnowsClients(in.Protocol) || members["settings"] == nil {
		return nil, nil
	}
	settings, err := object(members["settings"])
	if err != nil {
		return nil, invalid(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	if !HasUserManager(in.Protocol) || in.Protocol == "wireguard" {
		var clients Clients
		if clients, in.Unattributed, err = takeFixed(*in, settings, inClientMap); err != nil {
			return nil, err
		}
		members["settings"], err = json.Marshal(settings)
		return clients, err
	}
	var raws []json.RawMessage
	if raw, ok := settings["clients"]; ok {
		if err := json.Unmarshal(raw, &raws); err != nil {
			return nil, invalid(in.Tag, "read settings.clients of inbound %q: %v", in.Tag, err)
		}
		// Emptied, not deleted: Xray tells a multi-user Shadowsocks by it.
		settings["clients"] = json.RawMessage("[]")
	} else {
		in.Unattributed = singleUser(settings)
	}
	if members["settings"], err = json.Marshal(settings); err != nil {
		return nil, invalid(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	clients := make([]Client, 0, len(raws))
	uuids, keys := map[uuid]int{}, map[string]int{}
	for i, read := range parseAll(*in, raws, inClientMap) {
		client, id := read.client, read.id
		if read.err != nil {
			return nil, invalid(in.Tag, "inbound %q, clients[%d]: %v", in.Tag, i, read.err)
		}
		if j, twice := keys[client.Key]; twice {
			return nil, invalid(in.Tag, "inbound %q, clients[%d] and clients[%d] have the same key", in.Tag, j, i)
		}
		keys[client.Key] = i
		if id != nil {
			if j, twice := uuids[id.routed()]; twice {
				return nil, invalid(in.Tag, "inbound %q, clients[%d] and clients[%d] have one UUID (Xray ignores its bytes 6 and 7): only one of them could connect", in.Tag, j, i)
			}
			uuids[id.routed()] = i
		}
		clients = append(clients, client)
	}
	return sorted(clients), nil
}

// singleUser is the name of the one user of a Shadowsocks inbound without clients, by
// its single password.
func singleUser(settings map[string]json.RawMessage) []string {
	var email string
	if json.Unmarshal(settings["email"], &email) != nil || email == "" {
		return nil
	}
	return []string{email}
}

// parsedClient is what became of one client object.
type parsedClient struct {
	client Client
	id     *uuid
	err    error
}

// parseAll reads the clients on all processors: a hundred thousand are most of the
// time that a configuration takes. inClientMap is asked by several at once.
func parseAll(in Inbound, raws []json.RawMessage, inClientMap func(string) bool) []parsedClient {
	all := make([]parsedClient, len(raws))
	var reading sync.WaitGroup
	share := max(1000, (len(raws)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for from := 0; from < len(raws); from += share {
		reading.Go(func() {
			for i := from; i < min(from+share, len(raws)); i++ {
				all[i].client, all[i].id, all[i].err = parseClient(in, raws[i], inClientMap)
			}
		})
	}
	reading.Wait()
	return all
}

func parseClient(in Inbound, raw json.RawMessage, inClientMap func(string) bool) (Client, *uuid, error) {
	members, err := object(raw)
	if err != nil {
		return Client{}, nil, err
	}
	var client Client
	if slices.ContainsFunc(limitMembers, func(name string) bool { return members[name] != nil }) {
		if err := json.Unmarshal(raw, &client.Limits); err != nil {
			return Client{}, nil, err
		}
		if err := client.Limits.validate(); err != nil {
			return Client{}, nil, err
		}
		for _, name := range limitMembers {
			delete(members, name)
		}
	}
	_ = json.Unmarshal(members["email"], &client.Name) // one that is no text names nobody
	for _, name := range keyMembers {
		var value string
		if members[name] == nil || json.Unmarshal(members[name], &value) != nil || value == "" {
			continue
		}
		if inClientMap(value) {
			client.Key, client.Tied = value, true
			break
		}
		if client.Key == "" {
			client.Key = value
		}
	}
	if client.Key == "" {
		return Client{}, nil, errors.New("it has none of email, id, password and auth")
	}
	var id *uuid
	if in.Protocol == "vless" || in.Protocol == "vmess" {
		if id, err = parseUUID(members["id"]); err != nil {
			return Client{}, nil, err
		}
	}
	delete(members, "email")
	client.shape = shapeOf(members)
	if client.Account, err = json.Marshal(members); err != nil {
		return Client{}, nil, err
	}
	client.Email = emailOf(in.Tag, client.Key, client.Account)
	if client.Limits != (Limits{}) {
		client.Group = emailOf("", client.Key, nil)
	}
	// The keys come out sorted behind the email; what is nested is small and Core
	// writes it the same way each time, so 100,000 clients are not decoded further.
	named := append([]byte(`{"email":"`), client.Email...)
	named = append(named, '"')
	if len(members) > 0 {
		named = append(named, ',')
	}
	client.Account = append(named, client.Account[1:]...)
	return client, id, nil
}

var shapeSeed = maphash.MakeSeed()

// shapeOf is a hash of what a client has beside its key.
func shapeOf(members map[string]json.RawMessage) uint64 {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		_, _ = h.WriteString(name)
		_ = h.WriteByte(0)
		if !slices.Contains(keyMembers, name) {
			_, _ = h.Write(members[name])
		}
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

func (l Limits) validate() error {
	if l.IPs < 0 || l.Connections < 0 || l.RateUpBitsPerSecond < 0 || l.RateDownBitsPerSecond < 0 {
		return errors.New("a limit is negative; leave it out for no limit")
	}
	return nil
}

type uuid [16]byte

// routed is the part of a UUID by which Xray finds a user: it lets the client
// choose bytes 6 and 7 for routing.
func (u uuid) routed() uuid {
	u[6], u[7] = 0, 0
	return u
}

var errNotUUID = errors.New("its id is not a UUID (8-4-4-4-12 hex digits); Xray would silently make another one of it")

func parseUUID(raw json.RawMessage) (*uuid, error) {
	var text string
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, errors.New("it has no id")
	}
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, errNotUUID
	}
	digits := text
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		digits = strings.ReplaceAll(text, "-", "")
	}
	var id uuid
	if len(digits) != 32 {
		return nil, errNotUUID
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return nil, errNotUUID
	}
	return &id, nil
}
