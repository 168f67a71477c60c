// Package traffic stands where every proxied stream of a worker passes: it decides which
// client a stream belongs to, refuses the streams of unknown clients, counts bytes,
// holds limits, and ends the streams of clients that are removed.
//
// The [Registry] knows the clients and their open streams. The [Dispatcher] stands before
// xray-core's own dispatcher and asks the registry about each stream.
package traffic
