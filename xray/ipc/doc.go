// Package ipc has the frames and messages that the daemon and a worker exchange.
//
// The two are connected by a unix socket pair; the worker inherits its end as descriptor
// [WorkerFD]. Each frame is a length of four bytes (big endian) and then one JSON value of
// that many bytes, 64 MiB at the most.
//
// The daemon sends a [Request], the worker a [Message]:
//
//   - The first request is a [Boot]. Until it is answered the daemon sends no other.
//   - Every request has an ID that is not 0, and gets exactly one Message with that ID.
//     The worker executes the operations one after the other, in the order in which they
//     come. It answers a ping at once, also while it executes an operation.
//   - A Message with the ID 0 is an event, which no request asked for: a client's presence,
//     the end of removed clients' streams, or a notice.
//   - The worker ends when the socket does, so a daemon that dies leaves no worker behind.
//
// An example, one value in each frame:
//
//	daemon  {"id":1,"boot":{"counters":"/run/node-agent/counters","base":{}}}
//	worker  {"id":1,"info":{"xrayVersion":"26.7.28","build":"5f0c…","processors":2,"goroutines":9,…}}
//	daemon  {"id":2,"operation":{"kind":"remove_users","tag":"in-1","emails":["5f0c…"]}}
//	worker  {"id":2}
//	worker  {"closed":[7]}
package ipc
