package parse

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// accountMembers are the members that tell accounts and peers apart.
type accountMembers struct {
	User       string   `json:"user"`      // of an account
	PublicKey  string   `json:"publicKey"` // of a peer
	AllowedIPs []string `json:"allowedIPs"`
}

// takeAccounts reads an inbound's accounts or peers. Accounts stay in the settings, without
// the members that node-agent adds. unattributed has the names of the accounts that belong
// to no client: they have no key, or a key that another account has. refused has the peers
// that could not be read; an account that cannot be read is an error.
func takeAccounts(in state.Inbound, settings map[string]json.RawMessage, inClientMap func(string) bool) (clients state.Clients, unattributed []string, refused []*fault.Fault, err error) {
	member, arePeers := state.Protocols[in.Protocol].AccountsAt(), in.Protocol == "wireguard"
	if arePeers {
		member = state.Protocols["wireguard"].ClientsAt
	}
	var entries []map[string]json.RawMessage
	if raw, there := settings[member]; !there {
		return nil, nil, nil, nil
	} else if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, nil, nil, fault.InText(in.Tag, "read settings.%s of inbound %q: %v", member, in.Tag, err)
	}
	if entries == nil {
		entries = []map[string]json.RawMessage{} // null: an HTTP proxy without a list is open to everybody
	}
	keys := map[string]bool{}
	users, sound := make([]string, len(entries)), true
	var read []state.Client
	for i, entry := range entries {
		client, err := parseAccount(in, entry, func(key string) bool { return !keys[key] && inClientMap(key) })
		if err != nil {
			f := fault.InText(in.Tag, "inbound %q, %s[%d]: %v", in.Tag, member, i, err)
			if !arePeers { // a proxy with an account less could be open to everybody
				return nil, nil, nil, f
			}
			f.Kind, f.Client = fault.Client, client.Name
			refused = append(refused, f)
			continue
		}
		users[i] = client.User
		sound = sound && isSound(entry, client)
		if arePeers && keys[client.Key] { // another peer has the same email
			client.Key, client.Tied, client.Reading.Settled = PublicKeyOf(client.Account), false, false
			client.Email = emailOf(in.Tag, client.Key, client.Account)
		}
		if client.Key == "" || keys[client.Key] {
			unattributed = append(unattributed, client.User)
			continue
		}
		keys[client.Key] = true
		read = append(read, client)
	}
	switch {
	case arePeers:
		entries = entries[:0]
	case sound:
		entries = byUser(entries, users)
	default: // the check names an account by its place in the document
	}
	if settings[member], err = json.Marshal(entries); err != nil {
		return nil, nil, nil, fault.InText(in.Tag, "read settings.%s of inbound %q: %v", member, in.Tag, err)
	}
	return state.SortClients(read), unattributed, refused, nil
}

// isSound reports whether an account has a user and a password, and no member in other case.
func isSound(account map[string]json.RawMessage, read state.Client) bool {
	var password string
	_ = json.Unmarshal(account["pass"], &password) // the worker refuses what is no text
	return read.User != "" && password != "" && !read.Reading.OddCase
}

// byUser returns accounts in the order of their users: another order of one list, as in a document
// that was put together again, is the same inbound. Of accounts with one user, Xray takes the last
// one, so that these keep their order.
func byUser(accounts []map[string]json.RawMessage, users []string) []map[string]json.RawMessage {
	order := make([]int, len(accounts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return strings.Compare(users[i], users[j]) })
	sorted := make([]map[string]json.RawMessage, len(accounts))
	for n, i := range order {
		sorted[n] = accounts[i]
	}
	return sorted
}

func parseAccount(in state.Inbound, entry map[string]json.RawMessage, inClientMap func(string) bool) (state.Client, error) {
	var client state.Client
	var own accountMembers
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
	if err := validateLimits(client.Limits); err != nil {
		return client, err
	}
	if client.Grant, err = grant.Read(entry[memberGrant]); err != nil {
		return client, err
	}
	client.Reading.Granted = client.Grant != nil
	_ = json.Unmarshal(entry["email"], &client.Name) // an email that is no string is ignored
	client.Reading.OddCase = slices.ContainsFunc(slices.Collect(maps.Keys(entry)), isOddCase)
	for _, name := range slices.Concat([]string{"email"}, limitMembers) {
		delete(entry, name)
	}
	// A delta takes these texts for the key too (delta.ClientKey).
	others := slices.ContainsFunc([]string{"id", "password", "auth"}, func(name string) bool { return entry[name] != nil })
	for _, key := range []string{client.Name, own.User, own.PublicKey} {
		if key != "" && (client.Key == "" || !client.Tied && inClientMap(key)) {
			client.Reading.Settled = client.Key == "" && !others && inClientMap(key)
			client.Key, client.Tied = key, inClientMap(key)
		}
	}
	client.User = own.User
	if in.Protocol == "wireguard" {
		client.Reading.PrivateKey = withoutPrivateKey(entry)
	}
	if in.Protocol == "wireguard" && own.AllowedIPs == nil { // Xray's default
		own.AllowedIPs = []string{"0.0.0.0/0", "::/0"}
	}
	for _, text := range own.AllowedIPs {
		prefix, err := netip.ParsePrefix(text)
		if address, errAddress := netip.ParseAddr(text); err != nil && errAddress == nil {
			prefix, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil {
			return client, fmt.Errorf("allowedIPs: %q is neither an address nor a network: want for example 10.0.0.2 or 10.0.0.0/24", text)
		}
		client.Addresses = append(client.Addresses, prefix)
	}
	if client.Account, err = rawjson.Canonical(entry); err != nil {
		return client, err
	}
	if in.Protocol == "wireguard" {
		client.Reading.SecretHash = xxhash.Sum64String(publicKey(own.PublicKey))
	}
	client.Email = emailOf(in.Tag, client.Key, client.Account)
	if client.Bounded() {
		client.Group = GroupOf(client.Key)
	}
	return client, nil
}
