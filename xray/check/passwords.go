package check

import (
	"encoding/json"
	"errors"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// secretOf returns the text by which Xray tells clients apart. For Shadowsocks it includes the
// cipher: one password makes another key for another cipher.
func secretOf(c *state.Client, protocol string) string {
	var account struct{ Password, Auth, Method string }
	if json.Unmarshal(c.Account, &account) != nil {
		return ""
	}
	return account.Password + parse.SecretText(protocol, account.Auth) + "\x00" + parse.CipherOf(protocol, account.Method)
}

// checkPasswords returns a fault where two clients have one password, and at least one of them
// is new. Xray would treat them as one client: removing either would lock out both.
func checkPasswords(from, to state.State) error {
	var all []error
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag].Clients
		if state.Protocols[in.Protocol].Secret == "" || before.SameNames(in.Clients) {
			continue
		}
		known := make(map[uint64]*state.Client, len(in.Clients))
		for _, client := range in.Clients {
			first, twice := known[client.Reading.SecretHash]
			if !twice {
				known[client.Reading.SecretHash] = client
				continue
			}
			if before.Find(first.Email) != nil && before.Find(client.Email) != nil || secretOf(first, in.Protocol) != secretOf(client, in.Protocol) {
				continue
			}
			added := client
			if before.Find(client.Email) != nil {
				added = first
			}
			all = append(all, ofClient(fault.InText(tag, "inbound %q: %s and %s have the same %s, so removing one of them would lock out both: give each another one",
				tag, clientLabel(first), clientLabel(client), state.Protocols[in.Protocol].Secret), added))
		}
	}
	return errors.Join(all...)
}

// clientLabel names a client in errors. It shows no secret.
func clientLabel(c *state.Client) string {
	if name := clientName(c); name != "" {
		return "client " + jsonText(name)
	}
	return "a client without an email"
}

// clientName returns the name that Core gave the client. It is empty where there is none, and
// where the name is the client's secret too.
func clientName(c *state.Client) string {
	if strings.Contains(string(c.Account), jsonText(c.Name)) {
		return ""
	}
	return c.Name
}

func jsonText(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		return ""
	}
	return string(raw)
}
