// Package traffic sees every proxied stream of a worker. It decides which client a stream
// belongs to, refuses the streams of unknown clients, counts bytes, enforces limits, and
// ends the streams of clients that are removed.
//
// The [Registry] knows the clients and their open streams. The [Dispatcher] wraps
// xray-core's dispatcher and asks the registry about each stream.
package traffic
