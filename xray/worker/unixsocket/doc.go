// Package unixsocket places an inbound's unix socket: xray-core makes it under a name
// beside its path, and it is renamed over the socket that was there, so that there is
// always one that listens.
package unixsocket
