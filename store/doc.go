// Package store keeps what a node must not forget, in one bbolt file: its identity, the
// configurations that ran, how far each counter is accounted, which sessions are online, and
// the outbox of what Core has not acknowledged.
//
// Buckets of layout 1:
//
//	meta      identity, registration attempt, configurations, open minute, epoch of the
//	          counters
//	slots     slot (uint32, big endian) → Owner, JSON
//	pages     page (uint32, big endian) → accounts of 256 slots, see page.go
//	online    slot, address → the online event of a session, see online.go
//	usage, outbound, events, reports
//	          sequence (uint64, big endian) → batch for Core
//	aside     sequence (uint64, big endian) → batch that Core refused for good
package store
