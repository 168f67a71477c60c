package state

import (
	"encoding/json"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
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
// own settings, as accounts are, they are taken out there too; gone is asked for those
// of nobody as well, with their account alone.
func (in Inbound) Without(gone func(Client) bool) (Inbound, error) {
	removed, attributed := map[string]bool{}, map[string]bool{} // by account
	in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c Client) bool {
		attributed[string(c.Account)] = true
		removed[string(c.Account)] = gone(c)
		return removed[string(c.Account)]
	})
	if Protocols[in.Protocol].AccountsAt() == "" {
		return in, nil
	}
	config, settings, entries, err := in.accounts()
	if err != nil {
		return in, err
	}
	// Both are canonical.
	left := slices.DeleteFunc(slices.Clone(entries), func(entry json.RawMessage) bool {
		return removed[string(entry)] || !attributed[string(entry)] && gone(Client{Account: entry})
	})
	if len(left) == len(entries) {
		return in, nil
	}
	if settings[Protocols[in.Protocol].AccountsAt()], err = json.Marshal(left); err == nil {
		if config["settings"], err = json.Marshal(settings); err == nil {
			in.Config, err = rawjson.Canonical(config)
			in.view = nil
		}
	}
	if err != nil {
		return in, fault.InText(in.Tag, "write inbound %q: %v", in.Tag, err)
	}
	return in, nil
}

// HasAccount tells whether the inbound's own settings have the account, which is
// canonical.
func (in Inbound) HasAccount(account json.RawMessage) bool {
	_, _, entries, err := in.accounts()
	return err == nil && slices.ContainsFunc(entries, func(entry json.RawMessage) bool { return string(entry) == string(account) })
}

// accounts takes an inbound's object apart. It has none where it has no settings.
func (in Inbound) accounts() (config, settings map[string]json.RawMessage, entries []json.RawMessage, err error) {
	if config, err = rawjson.Object(in.Config); err == nil && config["settings"] != nil {
		if settings, err = rawjson.Object(config["settings"]); err == nil && settings[Protocols[in.Protocol].AccountsAt()] != nil {
			err = json.Unmarshal(settings[Protocols[in.Protocol].AccountsAt()], &entries)
		}
	}
	if err != nil {
		err = fault.InText(in.Tag, "read the accounts of inbound %q: %v", in.Tag, err)
	}
	return config, settings, entries, err
}
