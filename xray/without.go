package xray

import (
	"encoding/json"
	"slices"
)

// credential is what a client proves itself with, of whichever protocol.
type credential struct {
	ID, Password, Auth, User, Pass, PublicKey, PreSharedKey string
}

// SameCredential tells whether two clients prove themselves with the same.
func (c Client) SameCredential(o Client) bool {
	var mine, other credential
	return json.Unmarshal(c.Account, &mine) == nil && json.Unmarshal(o.Account, &other) == nil && mine == other
}

// Without returns the inbound without some of its clients. Where they are a part of its
// own settings, as accounts and peers are, they are taken out there too.
func (in Inbound) Without(gone func(Client) bool) (Inbound, error) {
	removed := map[string]bool{} // by account
	in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c Client) bool {
		if gone(c) {
			removed[string(c.Account)] = true
			return true
		}
		return false
	})
	member := fixedMember(in.Protocol)
	if member == "" || len(removed) == 0 {
		return in, nil
	}
	config, err := object(in.Config)
	if err != nil {
		return in, invalid(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	settings, err := object(config["settings"])
	if err != nil {
		return in, invalid(in.Tag, "read settings of inbound %q: %v", in.Tag, err)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(settings[member], &entries); err != nil {
		return in, invalid(in.Tag, "read settings.%s of inbound %q: %v", member, in.Tag, err)
	}
	// Both are canonical.
	entries = slices.DeleteFunc(entries, func(entry json.RawMessage) bool { return removed[string(entry)] })
	if settings[member], err = json.Marshal(entries); err == nil {
		if config["settings"], err = json.Marshal(settings); err == nil {
			in.Config, err = canonical(config)
		}
	}
	if err != nil {
		return in, invalid(in.Tag, "write inbound %q: %v", in.Tag, err)
	}
	return in, nil
}
