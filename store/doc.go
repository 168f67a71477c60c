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
//	sums      page (uint32, big endian) → checksum of that page of accounts, see page.go
//	damaged   sequence of aside → a value that was damaged, see damage.go
//	spare     a copy of the identity and of the layout
//
// The file "parsed" beside it has the current configuration in another form, which may be lost: see
// parsed.go. So may the file "elements", which has hashes of its parts: see elements.go.
//
// Values have checksums (see sum.go). A value that cannot be read costs itself alone: it is taken
// out of its place and put into the bucket damaged, which operators and Core are told of. Damage to
// the structure of the file is looked for when the file is opened, before bbolt works with it: see
// open.go and rebuild.go. Damage has these consequences:
//
//	accounts, owners   traffic that was not in a row yet may be lost, and is never counted
//	                   twice: an account of which nothing is known goes on from what its counter
//	                   says now, see uncertain.go
//	configurations     the newest one that can be read is served, without clients that a newer
//	                   one had removed, see History.Narrow
//	batches            the others are delivered
//
// The package is larger than others: a byte's way from the counter to the batch is one
// transaction over most of the buckets, and every value is read through the same checksums.
// Package store/salvage reads a damaged file without a transaction.
package store
