// Package life finds out whether the peers of accepted TCP connections are still there.
//
// A phone that changes its network sends no FIN. A connection that is idle then ends by TCP
// keepalive, which every listener sets (KeepAlive). While bytes are under way to the peer,
// the kernel sends no keepalive: it sends them again for a quarter of an hour (tcp(7),
// tcp_retries2). Run ends such a connection after as long as keepalive would have taken. It
// does not use TCP_USER_TIMEOUT, because that also ends the connection of a peer that
// answers and does not read, such as one that pauses a film.
//
// Nothing here ends the connection of a peer that is silent and there: its kernel answers.
package life
