package xray

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// peersMember is where WireGuard has its clients. They change one by one, as a user
// manager's do.
const peersMember = "peers"

// fixedMember is where a protocol without a user manager has its clients. They
// stay in the inbound's own object, so that another list is another inbound.
func fixedMember(protocol string) string {
	switch protocol {
	case "socks", "http", "mixed":
		return "accounts"
	}
	return ""
}

// KnowsClients tells whether all clients of the protocol's inbounds are told to the
// worker: a stream that names another one is a stranger's.
func KnowsClients(protocol string) bool {
	return HasUserManager(protocol) || fixedMember(protocol) != ""
}

// fixedClient is what tells one from another.
type fixedClient struct {
	User       string   `json:"user"`      // of an account
	PublicKey  string   `json:"publicKey"` // of a peer
	AllowedIPs []string `json:"allowedIPs"`
}

// takeFixed reads an inbound's accounts or peers. Accounts stay in the settings, without
// our members. nobodys are the names of accounts that are no client's: those that tell no
// key, or one that another account has.
func takeFixed(in Inbound, settings map[string]json.RawMessage, inClientMap func(string) bool) (clients Clients, nobodys []string, err error) {
	member, arePeers := fixedMember(in.Protocol), in.Protocol == "wireguard"
	if arePeers {
		member = peersMember
	}
	var entries []map[string]json.RawMessage
	if raw, there := settings[member]; !there {
		return nil, nil, nil
	} else if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, nil, invalid(in.Tag, "read settings.%s of inbound %q: %v", member, in.Tag, err)
	}
	if entries == nil {
		entries = []map[string]json.RawMessage{} // null: an HTTP proxy without a list is open to everybody
	}
	keys := map[string]bool{}
	for i, entry := range entries {
		client, err := parseFixed(in, entry, func(key string) bool { return !keys[key] && inClientMap(key) })
		if err != nil {
			return nil, nil, invalid(in.Tag, "inbound %q, %s[%d]: %v", in.Tag, member, i, err)
		}
		if arePeers && keys[client.Key] { // another peer has its email
			client.Key, client.Tied = publicKeyOf(client.Account), false
			client.Email = emailOf(in.Tag, client.Key, client.Account)
		}
		if client.Key == "" || keys[client.Key] {
			nobodys = append(nobodys, client.User)
			continue
		}
		keys[client.Key] = true
		clients = append(clients, client)
	}
	if arePeers {
		entries = entries[:0]
	}
	if settings[member], err = json.Marshal(entries); err != nil {
		return nil, nil, invalid(in.Tag, "read settings.%s of inbound %q: %v", member, in.Tag, err)
	}
	return sorted(clients), nobodys, nil
}

// publicKeyOf is a peer's, in one way of writing where Xray takes several (base64 and
// hex); empty where it has none.
func publicKeyOf(account json.RawMessage) string {
	var peer fixedClient
	if json.Unmarshal(account, &peer) != nil {
		return ""
	}
	text := peer.PublicKey
	if raw, err := hex.DecodeString(text); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if raw, err := base64.RawStdEncoding.DecodeString(plain); err == nil && len(raw) == publicKeySize {
		return base64.StdEncoding.EncodeToString(raw)
	}
	return text // Xray says what is wrong with it
}

// withoutPrivateKey takes out of a peer what panels write for the client's own file: Xray
// has no use for it, and whoever reads it could be the client.
func withoutPrivateKey(peer map[string]json.RawMessage) (had bool) {
	before := len(peer)
	maps.DeleteFunc(peer, func(name string, _ json.RawMessage) bool { return strings.EqualFold(name, "privateKey") })
	return len(peer) < before
}

const publicKeySize = 32 // bytes, of Curve25519

func parseFixed(in Inbound, entry map[string]json.RawMessage, inClientMap func(string) bool) (Client, error) {
	var client Client
	var own fixedClient
	raw, err := json.Marshal(entry)
	if err != nil {
		return client, err
	}
	if err := json.Unmarshal(raw, &own); err != nil {
		return client, err
	}
	if err := json.Unmarshal(raw, &client.Limits); err != nil {
		return client, err
	}
	if err := client.Limits.validate(); err != nil {
		return client, err
	}
	_ = json.Unmarshal(entry["email"], &client.Name) // one that is no text names nobody
	client.odd = slices.ContainsFunc(slices.Collect(maps.Keys(entry)), isOdd)
	for _, name := range slices.Concat([]string{"email"}, limitMembers) {
		delete(entry, name)
	}
	for _, key := range []string{client.Name, own.User, own.PublicKey} {
		if key != "" && (client.Key == "" || !client.Tied && inClientMap(key)) {
			client.Key, client.Tied = key, inClientMap(key)
		}
	}
	client.User = own.User
	if in.Protocol == "wireguard" {
		client.spareKey = withoutPrivateKey(entry)
	}
	if in.Protocol == "wireguard" && own.AllowedIPs == nil { // as Xray takes it
		own.AllowedIPs = []string{"0.0.0.0/0", "::/0"}
	}
	for _, text := range own.AllowedIPs {
		prefix, err := netip.ParsePrefix(text)
		if address, errAddress := netip.ParseAddr(text); err != nil && errAddress == nil {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return client, fmt.Errorf("allowedIPs: %q is no address or network", text)
		}
		client.Addresses = append(client.Addresses, prefix)
	}
	if client.Account, err = canonical(entry); err != nil {
		return client, err
	}
	client.Email = emailOf(in.Tag, client.Key, client.Account)
	if client.Limits != (Limits{}) {
		client.Group = emailOf("", client.Key, nil)
	}
	return client, nil
}
