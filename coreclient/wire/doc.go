// Package wire has the request and answer bodies of Core's node routes, and
// nothing else: both sides of the contract import it, so that a member cannot
// be spelled in two ways.
//
// Every body carries exactly the members of the contract's fixed part. What an
// agent and our own Core say to each other beyond it travels in headers, whose
// names are here too.
package wire
