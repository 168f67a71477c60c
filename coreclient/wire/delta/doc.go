// Package delta has the difference of two configurations of a node, which Core may send in the
// place of the whole configuration (docs/protocol.md, "Deltas").
//
// A document, that is a NodeConfig as JSON, consists of elements: the clients of each inbound, the
// inbounds without their clients, the entries of clientMap, and the other members. Walk takes a
// document apart. Each element has a place (Kind, Inbound, Key), which no other element of the
// document has, and the bytes that Core sent. The Digest of a document is a sum over its elements,
// so that it is kept up by what changes.
//
// The order of clients, of inbounds and of members does not count: two documents with the same
// elements are the same configuration. The order inside an element counts, since an element is
// bytes: outbounds and routing are one element each.
//
// A document has no deltas where its elements have no places of their own: where an inbound has no
// tag or the tag of another one, or a client has no key or the key of another one. Walk returns
// ErrNoElements for it.
//
// The package is pure. It imports no other package of this module.
package delta
