package traffic

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// addressTable finds the client of one tunnel by an address inside the tunnel. Each stream
// looks up an address, and a tunnel may have ten thousand clients. Registry.mu guards it.
type addressTable struct {
	// prefixes has the users of each prefix, sorted by Email. Two clients may have the same
	// prefix. When one of them is removed, find returns the other one.
	prefixes bart.Table[[]*user]
}

func byEmail(a, b *user) int { return strings.Compare(a.client.Email, b.client.Email) }

// add enters the user under each of its prefixes. It does nothing for a user that is in the
// table.
func (t *addressTable) add(u *user) {
	for _, prefix := range u.client.Addresses {
		t.prefixes.Modify(prefix, func(users []*user, _ bool) ([]*user, bool) {
			at, _ := slices.BinarySearchFunc(users, u, byEmail)
			if slices.Contains(users, u) {
				return users, false
			}
			return slices.Insert(users, at, u), false
		})
	}
}

// remove undoes add. It does nothing for a user that is not in the table.
func (t *addressTable) remove(u *user) {
	for _, prefix := range u.client.Addresses {
		t.prefixes.Modify(prefix, func(users []*user, _ bool) ([]*user, bool) {
			users = slices.DeleteFunc(users, func(other *user) bool { return other == u })
			return users, len(users) == 0
		})
	}
}

// find returns the user with the narrowest prefix that contains address, or nil. If two users
// have that prefix, it returns the one with the smaller Email.
func (t *addressTable) find(address netip.Addr) *user {
	users, found := t.prefixes.Lookup(address)
	if !found {
		return nil
	}
	return users[0]
}
