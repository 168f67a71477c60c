// Package worker is the process that embeds xray-core: it executes the
// daemon's operations, counts every client's bytes into the shared counters
// file, and tells who comes and goes. It alone imports xray-core.
//
// Where xray-core's own parts can't be changed safely while they run, ours
// take their place: the dispatcher (counts, sessions, limits, removal), the
// router (replaced as one pointer), the outbound and inbound managers
// (replace in one step), and a guard against panics around every inbound.
// They reach xray-core's container through common.RegisterConfig with a
// well-known protobuf type, and find their shared state in the instance's
// context.
package worker
