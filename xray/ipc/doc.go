// Package ipc has the frames and messages that the daemon and a worker exchange.
//
// The worker inherits a listening unix socket as descriptor [SocketFD], in a [Folder] that only its
// owner may enter, and a pipe with a secret as [SecretFD]. A daemon connects. Then comes the
// handshake ([Greet], [Answer]), which carries [Version]. Each frame is a length of four bytes (big
// endian) and then one JSON value of that many bytes, 64 MiB at the most.
//
// The daemon sends a [Request], the worker a [Message]:
//
//   - The first request of the daemon that started the worker is a [Boot]. Until it is answered
//     the daemon sends no other. The first one of a later daemon is an [Adopt].
//   - Every request has an ID that is not 0, and gets exactly one Message with that ID.
//     The worker executes the operations one after the other, in the order in which they
//     come. It answers a ping at once, also while it executes an operation.
//   - A Message with the ID 0 is an event, which no request asked for: a client's presence,
//     the end of removed clients' streams, a notice, or a line of xray-core's log. Without a
//     daemon events wait for the next one.
//   - The connection ends with the daemon. The worker then serves on, as [Orphan] says.
//
// An example, one value in each frame:
//
//	daemon  {"id":1,"boot":{"counters":"/run/node-agent/counters","base":{}}}
//	worker  {"id":1,"info":{"xrayVersion":"26.7.28","build":"5f0c…","processors":2,"goroutines":9,…}}
//	daemon  {"id":2,"operation":{"kind":"remove_users","tag":"in-1","emails":["5f0c…"]}}
//	worker  {"id":2}
//	worker  {"closed":[7]}
package ipc
