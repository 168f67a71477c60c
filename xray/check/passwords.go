package check

import (
	"encoding/json"
	"errors"
	"iter"
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
		in, before := to.Inbounds[tag], from.Inbounds[tag]
		if state.Protocols[in.Protocol].Secret == "" {
			continue
		}
		for first, client := range twins(before, in) {
			if secretOf(first, in.Protocol) != secretOf(client, in.Protocol) {
				continue
			}
			added := newOf(before.Clients, first, client)
			all = append(all, ofClient(fault.InText(tag, "inbound %q: %s and %s have the same %s, so removing one of them would lock out both: give each another one",
				tag, clientLabel(first), clientLabel(client), state.Protocols[in.Protocol].Secret), added))
		}
	}
	return errors.Join(all...)
}

// twins yields the pairs of clients with one SecretHash of which at least one is not in before. Where not
// all new clients surely have secrets of their own, all of 100,000 clients are looked at: that costs less
// than a map of all.
func twins(before, now state.Inbound) iter.Seq2[*state.Client, *state.Client] {
	return func(yield func(first, client *state.Client) bool) {
		if now.SecretsApart(before) {
			return
		}
		firsts := map[uint64]*state.Client{}
		var only uint64
		gone, come := state.Apart(before, now)
		for client := range come.NotIn(gone) {
			only = client.Reading.SecretHash
			firsts[only] = nil
		}
		if len(firsts) == 0 {
			return
		}
		for _, client := range now.Clients {
			hash := client.Reading.SecretHash
			if len(firsts) == 1 && hash != only {
				continue
			}
			first, is := firsts[hash]
			switch {
			case !is:
			case first == nil:
				firsts[hash] = client
			case before.Clients.Find(first.Email) != nil && before.Clients.Find(client.Email) != nil:
			case !yield(first, client):
				return
			}
		}
	}
}

// newOf returns the second of two clients, or the first one where before has the second.
func newOf(before state.Clients, first, second *state.Client) *state.Client {
	if before.Find(second.Email) != nil {
		return first
	}
	return second
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
