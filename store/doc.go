// Package store keeps what a node must not forget, in one bbolt file: who it
// is, its last good configuration, how far each counter is accounted, who is
// online, and the outbox of what Core has not acknowledged.
//
// Buckets, layout 1:
//
//	meta      identity, registration attempt, last good configuration, open
//	          minute, and the epoch of the counters
//	slots     slot (uint32, big endian) → Owner, JSON
//	pages     page (uint32, big endian) → 256 slots' accounts, see page.go
//	online    slot, address → since when, see online.go
//	usage, outbound, events, reports
//	          sequence (uint64, big endian) → batch that waits for Core
//	aside     batches that Core refused for good
package store
