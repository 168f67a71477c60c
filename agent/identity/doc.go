// Package identity keeps who this node is, and to which Core it belongs. It makes the client
// with which the agent calls that Core, and another one whenever Core's address or the node's
// key changes: because an operator moves the node to another address of the same Core, because
// Core has announced an address, or because Core has given the node another key. It sends
// nothing to Core while the state is on another machine than the one that registered.
package identity
