// Package telemt is the MTProto engine: it keeps one telemt running for each MTProto
// inbound that Core wants. telemt shares its users, modes, mask and upstreams over all
// listeners and counts nothing per listener, so each inbound is a telemt of its own.
package telemt
