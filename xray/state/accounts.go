package state

import (
	"encoding/json"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
)

// credential has the members by which clients of all protocols prove who they are.
type credential struct {
	ID, Password, Auth, User, Pass, PublicKey, PreSharedKey string
}

// SameCredential reports whether the two clients prove who they are by the same secret. It
// reports false where an account cannot be decoded.
func (c *Client) SameCredential(o *Client) bool {
	var mine, other credential
	return json.Unmarshal(c.Account, &mine) == nil && json.Unmarshal(o.Account, &other) == nil && mine == other
}

// Without returns the inbound without the clients for which remove returns true. It also
// takes the accounts of SOCKS and HTTP inbounds out of Config. remove is called too for
// accounts that belong to no client, with a Client that has only Account.
func (in Inbound) Without(remove func(*Client) bool) (Inbound, error) {
	if Protocols[in.Protocol].AccountsAt() == "" {
		in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), remove)
		return in, nil
	}
	removed, attributed := map[string]bool{}, map[string]bool{} // by account
	in.Clients = slices.DeleteFunc(slices.Clone(in.Clients), func(c *Client) bool {
		attributed[string(c.Account)] = true
		removed[string(c.Account)] = remove(c)
		return removed[string(c.Account)]
	})
	config, settings, entries, err := in.accounts()
	if err != nil {
		return in, err
	}
	// The clients' accounts and the entries are both in canonical form.
	left := slices.DeleteFunc(slices.Clone(entries), func(entry json.RawMessage) bool {
		return removed[string(entry)] || !attributed[string(entry)] && remove(&Client{Account: entry})
	})
	if len(left) == len(entries) {
		return in, nil
	}
	return in.withAccounts(config, settings, left)
}

// withAccounts returns the inbound with other accounts in its Config, of which config and settings
// are the members. It changes both.
func (in Inbound) withAccounts(config, settings map[string]json.RawMessage, entries []json.RawMessage) (_ Inbound, err error) {
	if settings[Protocols[in.Protocol].AccountsAt()], err = json.Marshal(entries); err == nil {
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

// WithAccountsOfClients returns the inbound with the accounts of its clients in Config, in the order
// of their users, and no others.
func (in Inbound) WithAccountsOfClients() (Inbound, error) {
	config, settings, _, err := in.accounts()
	if err != nil {
		return in, err
	}
	ordered := slices.Clone(in.Clients)
	slices.SortStableFunc(ordered, func(a, b *Client) int { return strings.Compare(a.User, b.User) })
	entries := make([]json.RawMessage, len(ordered))
	for i, c := range ordered {
		entries[i] = c.Account
	}
	if in, err = in.withAccounts(config, settings, entries); err != nil {
		return in, err
	}
	return in.Decoded(), nil
}

// HasAccount reports whether the accounts in the inbound's Config include account, which is
// in canonical form.
func (in Inbound) HasAccount(account json.RawMessage) bool {
	_, _, entries, err := in.accounts()
	return err == nil && slices.ContainsFunc(entries, func(entry json.RawMessage) bool { return string(entry) == string(account) })
}

// accounts splits the inbound's Config into its members, the members of settings, and the
// accounts. There are no accounts where Config has no settings.
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
