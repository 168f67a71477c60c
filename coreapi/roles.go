package coreapi

import "slices"

// Role is what a token may do. Each role may do all that the roles before it may.
type Role string

// The roles, from the least to the greatest.
const (
	ReadOnly Role = "read-only" // reads everything but credentials
	Support  Role = "support"   // also reads credentials, adds and edits users and subscriptions
	Operator Role = "operator"  // also removes, and changes nodes, protocols, outbounds
	Owner    Role = "owner"     // also tokens, and where nodes look for Core
)

var roles = []Role{ReadOnly, Support, Operator, Owner}

// Roles returns the roles, from the least to the greatest.
func Roles() []Role { return slices.Clone(roles) }

// May reports whether the role is at least another one. A role that does not exist may nothing.
func (r Role) May(least Role) bool {
	has, needs := slices.Index(roles, r), slices.Index(roles, least)
	return has >= 0 && needs >= 0 && has >= needs
}
