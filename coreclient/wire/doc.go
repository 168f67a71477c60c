// Package wire has the request and answer bodies of Core's node routes, the names of the routes
// and headers, and the join token. Both sides of the contract import it, so that they spell
// every member alike.
//
// A body has exactly the members that the contract fixes. What node-agent and node-core tell
// each other beyond it is in headers.
package wire
