// Package telemt is the MTProto engine's configuration: what Core wants of an
// MTProto inbound, and the file that the telemt proxy reads. telemt shares its
// users, modes, mask and upstreams over all listeners and counts nothing per
// listener, so each inbound is a telemt of its own.
package telemt
