package xray

import (
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
)

// secretMember is what a client of the protocol proves itself with where Xray takes two
// clients of one; empty for the others.
func secretMember(protocol string) string {
	switch protocol {
	case "trojan", "shadowsocks":
		return "password"
	case "hysteria":
		return "auth"
	}
	return ""
}

// secretOf is the client's as Xray knows it by: two ciphers make two keys of one password.
func (c *Client) secretOf(protocol string) string {
	var account struct{ Password, Auth, Method string }
	if json.Unmarshal(c.Account, &account) != nil {
		return ""
	}
	return account.Password + account.Auth + "\x00" + cipherOf(protocol, account.Method)
}

// cipherOf is a Shadowsocks method without the ways in which Xray lets it be written.
func cipherOf(protocol, method string) string {
	if protocol != "shadowsocks" {
		return ""
	}
	return strings.NewReplacer("aead_", "", "_", "-", "-ietf", "").Replace(strings.ToLower(method))
}

// hashSecret is the same for two clients that prove themselves with the same: a hundred
// thousand are compared by it, and not read again.
func hashSecret(protocol string, members []member) uint64 {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	for _, name := range []string{secretMember(protocol), "method"} {
		if m := find(members, name); m != nil {
			text, _ := m.text()
			if name == "method" {
				text = cipherOf(protocol, text)
			}
			_, _ = h.WriteString(text)
		}
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

// checkPasswords finds two clients of one password, where at least one of them is new:
// Xray would take them for one, and who removes either locks both out.
func checkPasswords(from, to State) error {
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag].Clients
		if secretMember(in.Protocol) == "" || slices.EqualFunc(before, in.Clients, func(a, b Client) bool { return a.Email == b.Email }) {
			continue
		}
		known := make(map[uint64]*Client, len(in.Clients))
		for i := range in.Clients {
			client := &in.Clients[i]
			first, twice := known[client.secret]
			if !twice {
				known[client.secret] = client
				continue
			}
			if before.Find(first.Email) != nil && before.Find(client.Email) != nil || first.secretOf(in.Protocol) != client.secretOf(in.Protocol) {
				continue
			}
			return invalid(tag, "inbound %q: %s and %s have one %s: who removes either would lock both out; give each its own",
				tag, first.called(), client.called(), secretMember(in.Protocol))
		}
	}
	return nil
}

// called is a client's name for errors, which is no secret.
func (c *Client) called() string {
	if c.Name == "" || strings.Contains(string(c.Account), jsonText(c.Name)) {
		return "a client without an email of its own"
	}
	return "client " + jsonText(c.Name)
}

func jsonText(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		return ""
	}
	return string(raw)
}
