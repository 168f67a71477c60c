package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// checkSecrets finds a new client without a secret: Xray takes it, and lets in everybody
// who sends none.
func checkSecrets(from, to state.State) error {
	var all []error
	for tag, client := range newClients(from, to, func(r state.Reading) bool { return r.NoSecret }) {
		all = append(all, ofClient(fault.InText(tag, "inbound %q: %s has no %s: anybody could connect as it; give it one, a text that is not empty",
			tag, clientLabel(client), state.Protocols[to.Inbounds[tag].Protocol].Secret), client))
	}
	return errors.Join(all...)
}

// newClients yields the clients of to of which the question holds and that do not run in
// from as they are, each with the tag of its inbound.
func newClients(from, to state.State, holds func(state.Reading) bool) iter.Seq2[string, *state.Client] {
	return func(yield func(string, *state.Client) bool) {
		for _, tag := range to.Tags() {
			in, before := to.Inbounds[tag], from.Inbounds[tag]
			for i := range in.Clients {
				client := &in.Clients[i]
				if holds(client.Reading) && (before.Protocol != in.Protocol || before.Clients.Find(client.Email) == nil) && !yield(tag, client) {
					return
				}
			}
		}
	}
}

// ofClient notes which client of its inbound the fault concerns.
func ofClient(f *fault.Fault, client *state.Client) *fault.Fault {
	f.Kind, f.ClientEmail = fault.Client, client.Email
	f.Client = clientName(client)
	return f
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
