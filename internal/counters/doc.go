// Package counters is the file of byte counters that the daemon and the Xray workers map into
// memory.
//
// A worker adds to the counters, and the daemon reads them without asking the worker. A worker
// that is killed leaves every byte that it counted. Counters only grow, and are never reset. A
// new file has a new epoch: a reader sees by it that all counters began again at zero.
//
// Layout version 1, in native byte order, since the file never leaves the host:
//
//	offset 0     magic "nodectr\x00" (8 bytes)
//	offset 8     layout version, uint32
//	offset 12    CRC-32 (IEEE) of the magic, the version and the epoch
//	offset 16    epoch, 16 random bytes
//	offset 4096  slots of 16 bytes: up uint64, down uint64
//
// A worker holds a shared lock on the file (flock) as long as it lives. A daemon that starts
// after a crash waits for that lock before it reads the last values.
package counters
