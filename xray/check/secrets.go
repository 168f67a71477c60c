package check

import (
	"encoding/json"
	"fmt"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// checkSecrets finds a new client without a secret: Xray takes it, and lets in everybody
// who sends none.
func checkSecrets(from, to state.State) error {
	tag, client := firstNewClient(from, to, func(c *state.Client) bool { return c.Reading.NoSecret })
	if client == nil {
		return nil
	}
	return fault.InText(tag, "inbound %q: %s has no %s: anybody could connect as it; give it one, a text that is not empty",
		tag, clientLabel(client), state.Protocols[to.Inbounds[tag].Protocol].Secret)
}

// firstNewClient is one that does not run as it is, and of which the question holds: nil
// for none.
func firstNewClient(from, to state.State, holds func(*state.Client) bool) (tag string, client *state.Client) {
	for _, tag := range to.Tags() {
		in, before := to.Inbounds[tag], from.Inbounds[tag]
		for i := range in.Clients {
			client := &in.Clients[i]
			if holds(client) && (before.Protocol != in.Protocol || before.Clients.Find(client.Email) == nil) {
				return tag, client
			}
		}
	}
	return "", nil
}

// checkAccounts finds a new account of a proxy that asks for accounts, without a name or
// a password: Xray lets in everybody who sends none. It finds members in other case too.
func checkAccounts(before, in state.Inbound) error {
	known := askedAccounts(before)
	for i, raw := range askedAccounts(in) {
		var account struct {
			User *string `json:"user"`
			Pass *string `json:"pass"`
		}
		if json.Unmarshal(raw, &account) != nil || slices.ContainsFunc(known, func(old json.RawMessage) bool { return slices.Equal(old, raw) }) {
			continue // what can't be read the worker names
		}
		var members map[string]json.RawMessage
		_ = json.Unmarshal(raw, &members) // it has been read
		if err := checkCase(members, parse.ClientMembers...); err != nil {
			return fmt.Errorf("accounts[%d]: %w", i, err)
		}
		for _, part := range []struct {
			name string
			text *string
		}{{"user", account.User}, {"pass", account.Pass}} {
			if part.text == nil || *part.text == "" {
				return fmt.Errorf("accounts[%d] has no %s: who sends none could connect; give it one, a text that is not empty", i, part.name)
			}
		}
	}
	return nil
}

// askedAccounts are those that the proxy asks for, none where it asks nobody.
func askedAccounts(in state.Inbound) []json.RawMessage {
	settings := in.View().Settings
	if in.Protocol != "http" && (state.Protocols[in.Protocol].AccountsAt() == "" || settings.Auth != "password") {
		return nil
	}
	return settings.Accounts
}
