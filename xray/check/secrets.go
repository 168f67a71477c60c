package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// checkSecrets returns a fault for each new client without a secret. Xray would accept the
// client and let in everybody who sends no secret.
func checkSecrets(from, to state.State) error {
	var all []error
	for tag, client := range newClients(from, to, func(r state.Reading) bool { return r.NoSecret }) {
		all = append(all, ofClient(fault.InText(tag, "inbound %q: %s has no %s, so anybody could connect as it: give it one that is not empty",
			tag, clientLabel(client), state.Protocols[to.Inbounds[tag].Protocol].Secret), client))
	}
	return errors.Join(all...)
}

// newClients yields the clients of to for which matches is true and that from has not, each
// with the tag of its inbound. A client of another account or protocol is another client.
func newClients(from, to state.State, matches func(state.Reading) bool) iter.Seq2[string, *state.Client] {
	return func(yield func(string, *state.Client) bool) {
		for _, tag := range to.Tags() {
			in, before := to.Inbounds[tag], from.Inbounds[tag]
			if before.Protocol != in.Protocol {
				before = state.Inbound{}
			}
			gone, come := state.Apart(before, in)
			for client := range come.NotIn(gone) {
				if matches(client.Reading) && !yield(tag, client) {
					return
				}
			}
		}
	}
}

// ofClient sets the client that the fault concerns, and returns the fault.
func ofClient(f *fault.Fault, client *state.Client) *fault.Fault {
	f.Kind, f.ClientEmail = fault.Client, client.Email
	f.Client = clientName(client)
	return f
}

// checkAccounts returns an error for a new account of a proxy that asks for accounts, where
// the account has no user or no password, or a member in other case. Xray would let in
// everybody who sends an empty one.
func checkAccounts(before, in state.Inbound) error {
	known := map[string]bool{}
	for _, raw := range askedAccounts(before) {
		known[string(raw)] = true
	}
	for i, raw := range askedAccounts(in) {
		var account struct {
			User *string `json:"user"`
			Pass *string `json:"pass"`
		}
		if json.Unmarshal(raw, &account) != nil || known[string(raw)] {
			continue // the worker refuses by name what cannot be decoded
		}
		var members map[string]json.RawMessage
		_ = json.Unmarshal(raw, &members) // it was decoded above
		if err := checkCase(members, parse.ClientMembers...); err != nil {
			return fmt.Errorf("accounts[%d]: %w", i, err)
		}
		for _, part := range []struct {
			name string
			text *string
		}{{"user", account.User}, {"pass", account.Pass}} {
			if part.text == nil || *part.text == "" {
				return fmt.Errorf("accounts[%d] has no %s, so anybody could connect with an empty one: give it one that is not empty", i, part.name)
			}
		}
	}
	return nil
}

// askedAccounts returns the accounts of a proxy that asks its clients for an account, and none
// for another inbound.
func askedAccounts(in state.Inbound) []json.RawMessage {
	settings := in.View().Settings
	if in.Protocol != "http" && (state.Protocols[in.Protocol].AccountsAt() == "" || settings.Auth != "password") {
		return nil
	}
	return settings.Accounts
}
