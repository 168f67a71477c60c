// Package corestore keeps what Core knows, in SQLite: one connection writes, so
// that no change waits for a lock, and any number read beside it (WAL).
// A call that has returned is on disk.
package corestore
