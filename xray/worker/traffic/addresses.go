package traffic

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
)

// addressTable finds the client of one tunnel by an address inside the tunnel: each stream
// asks for it, and a tunnel may have ten thousand clients. The registry's mutex guards it.
type addressTable struct {
	// prefixes has the users of each prefix, sorted by Email: two clients may have the same
	// prefix, and when one leaves, the other has it.
	prefixes bart.Table[[]*user]
}

func byEmail(a, b *user) int { return strings.Compare(a.client.Email, b.client.Email) }

// add gives the user its prefixes. One that is there already stays as it is.
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

// remove takes the user's prefixes away. It does nothing for a user who is not there.
func (t *addressTable) remove(u *user) {
	for _, prefix := range u.client.Addresses {
		t.prefixes.Modify(prefix, func(users []*user, _ bool) ([]*user, bool) {
			users = slices.DeleteFunc(users, func(other *user) bool { return other == u })
			return users, len(users) == 0
		})
	}
}

// find returns the user with the narrowest prefix that contains the address, nil if there is
// none. Of two users with that prefix it is the one with the smaller Email.
func (t *addressTable) find(address netip.Addr) *user {
	users, found := t.prefixes.Lookup(address)
	if !found {
		return nil
	}
	return users[0]
}
