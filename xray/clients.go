package xray

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/maphash"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
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
	var raws []jsontext.Value
	if raw, ok := settings["clients"]; ok {
		if raws, err = elements(raw); err != nil {
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
	clients, ids, err := parseAll(*in, raws, inClientMap)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]int, len(clients))
	for i := range clients {
		key := clients[i].Key
		if j, twice := keys[key]; twice {
			return nil, invalid(in.Tag, "inbound %q, clients[%d] and clients[%d] have the same key", in.Tag, j, i)
		}
		keys[key] = i
	}
	uuids := make(map[uuid]int, len(ids))
	for i, id := range ids {
		if j, twice := uuids[id.routed()]; twice {
			return nil, invalid(in.Tag, "inbound %q, clients[%d] and clients[%d] have one UUID (Xray ignores its bytes 6 and 7): only one of them could connect", in.Tag, j, i)
		}
		uuids[id.routed()] = i
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

// parseAll reads the clients on all processors: a hundred thousand are most of the
// time that a configuration takes. ids are theirs where the protocol has UUIDs.
// inClientMap is asked by several at once.
func parseAll(in Inbound, raws []jsontext.Value, inClientMap func(string) bool) (clients []Client, ids []uuid, err error) {
	clients = make([]Client, len(raws))
	if in.Protocol == "vless" || in.Protocol == "vmess" {
		ids = make([]uuid, len(raws))
	}
	var reading sync.WaitGroup
	share := max(1000, (len(raws)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	failures := make([]error, (len(raws)+share-1)/share)
	for n := range failures {
		reading.Go(func() {
			reader := clientReader{memberReader: newMemberReader(), in: in, inClientMap: inClientMap}
			for i := n * share; i < min((n+1)*share, len(raws)); i++ {
				id, err := reader.client(raws[i], &clients[i])
				if err != nil {
					failures[n] = invalid(in.Tag, "inbound %q, clients[%d]: %v", in.Tag, i, err)
					return
				}
				if ids != nil {
					ids[i] = id
				}
			}
		})
	}
	reading.Wait()
	for _, err := range failures {
		if err != nil {
			return nil, nil, err
		}
	}
	return clients, ids, nil
}

// clientReader reads an inbound's clients one after the other.
type clientReader struct {
	*memberReader
	in          Inbound
	inClientMap func(string) bool
	account     []byte // of the client at hand, without its name
}

// client reads one into to. Its id is zero where the protocol has no UUIDs.
func (r *clientReader) client(raw []byte, to *Client) (id uuid, err error) {
	members, err := r.read(raw)
	if err != nil {
		return id, err
	}
	to.odd = slices.ContainsFunc(members, func(m member) bool { return isOdd(m.name) })
	if members, err = takeLimits(raw, members, &to.Limits); err != nil {
		return id, err
	}
	if email := find(members, "email"); email != nil {
		to.Name, _ = email.text() // one that is no text names nobody
	}
	for _, name := range keyMembers {
		m := find(members, name)
		if m == nil {
			continue
		}
		value, _ := m.text()
		if value != "" && r.inClientMap(value) {
			to.Key, to.Tied = value, true
			break
		}
		if to.Key == "" {
			to.Key = value
		}
	}
	if to.Key == "" {
		return id, errors.New("it has none of email, id, password and auth")
	}
	if flow := find(members, "flow"); flow != nil {
		text, _ := flow.text()
		to.vision = text == flowVision && find(members, "reverse") == nil
	}
	if r.in.Protocol == "vless" || r.in.Protocol == "vmess" {
		if id, err = parseUUID(find(members, "id")); err != nil {
			return id, err
		}
	}
	members = slices.DeleteFunc(members, func(m member) bool { return m.name == "email" })
	to.shape = shapeOf(members)
	if name := secretMember(r.in.Protocol); name != "" {
		to.secret = hashSecret(r.in.Protocol, members)
		to.open = !hasText(members, name)
	}
	// What is nested is small and Core writes it the same way each time, so 100,000
	// clients are not decoded further.
	if r.account, err = appendMembers(r.account[:0], members); err != nil {
		return id, err
	}
	to.Email = emailOf(r.in.Tag, to.Key, r.account)
	if to.Limits != (Limits{}) {
		to.Group = emailOf("", to.Key, nil)
	}
	to.Account = namedAccount(to.Email, r.account)
	return id, nil
}

// takeLimits moves what is ours out of a client's members.
func takeLimits(raw []byte, members []member, to *Limits) ([]member, error) {
	isLimit := func(m member) bool { return slices.Contains(limitMembers, m.name) }
	if !slices.ContainsFunc(members, isLimit) {
		return members, nil
	}
	if err := jsonv1.Unmarshal(raw, to); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(members, isLimit), to.validate()
}

// namedAccount is a client object with the name, of its other members.
func namedAccount(email string, members []byte) json.RawMessage {
	const head = `{"email":"`
	account := make([]byte, 0, len(head)+len(email)+len(`",}`)+len(members))
	account = append(append(append(account, head...), email...), '"')
	if len(members) > 0 {
		account = append(append(account, ','), members...)
	}
	return append(account, '}')
}

var shapeSeed = maphash.MakeSeed()

// shapeOf is a hash of what a client has beside its key.
func shapeOf(members []member) uint64 {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	for _, m := range members {
		_, _ = h.WriteString(m.name)
		_ = h.WriteByte(0)
		if !slices.Contains(keyMembers, m.name) {
			_, _ = h.Write(m.value)
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

func parseUUID(of *member) (id uuid, err error) {
	if of == nil || of.value.Kind() == 'n' {
		return id, errors.New("it has no id")
	}
	text, _ := of.text()
	digits := text
	if len(text) == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-' {
		digits = strings.ReplaceAll(text, "-", "")
	}
	if len(digits) != 2*len(id) {
		return id, errNotUUID
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return id, errNotUUID
	}
	return id, nil
}

// clientMembers are what we read of clients, accounts and peers.
var clientMembers = slices.Concat(keyMembers, limitMembers, []string{"method", "flow", "reverse", "user", "pass", "publicKey", "allowedIPs"})

// isOdd tells a member of a client that is one of ours but for upper and lower case.
func isOdd(name string) bool {
	return !slices.Contains(clientMembers, name) && slices.ContainsFunc(clientMembers, func(ours string) bool { return strings.EqualFold(name, ours) })
}
