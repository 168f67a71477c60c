// Package relay passes datagrams to the worker that has their connection, so that connections outlive
// the takeover by another worker.
//
// The workers of a node listen on the same UDP ports (SO_REUSEPORT), and the kernel gives a datagram
// to any of their sockets. Each connection id that a worker makes (RFC 9000 section 5.1) names the
// worker by its lane in package occupancy. A worker that gets a datagram of another one passes it on
// over a unix socket, with the client's address and what the kernel said about the datagram. A worker
// that drains passes the datagrams of new connections to the worker that serves. Answers leave by the
// socket of the worker that has the connection.
//
// A connection id is one block of AES-128: one byte with the lane, seven zeros, eight random bytes,
// encrypted with a key that the workers of a node share. To others it is 16 random bytes; a worker
// tells its own node's ids from those that clients make by the zeros, but for one in 2^56.
//
// Listeners that pass other things than datagrams connect the workers by streams (ListenStreams).
//
// Datagrams of other protocols name no worker. They belong to the worker that serves their source, the
// client's address and port; the workers note their sources in a file (Sources). Such a source is passed
// whole: nothing in a datagram is looked at, since masks may hide it.
//
// The unix sockets have abstract names (unix(7)), which end with their process. Both sides check that
// the other process runs as the same user.
package relay
