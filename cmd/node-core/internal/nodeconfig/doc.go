// Package nodeconfig translates between Core's rows and what nodes and clients read. Build makes
// the configuration of a node. FromFlags and FromNative make the row of an inbound from what an
// operator gives, and Check refuses a row of which Build or Links could make nothing. Links
// makes the links with which clients connect.
//
// All of it is computed from the arguments: the package stores nothing and has no locks.
// FromFlags makes a key pair for a REALITY inbound; it is stored only in the row.
package nodeconfig
