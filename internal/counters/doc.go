// Package counters is the file of byte counters that the daemon and the Xray
// worker both map into memory.
//
// The worker adds to it, the daemon reads it without a call, and a worker that
// is killed leaves every byte that it had counted. Counters only grow; nobody
// sets one back. A new file has a new epoch, which tells the reader that all
// counters began again at zero.
//
// Layout, version 1, native byte order (the file never leaves the machine):
//
//	offset 0     magic "nodectr\x00" (8 bytes)
//	offset 8     layout version, uint32
//	offset 12    CRC-32 (IEEE) of the magic, the version and the epoch
//	offset 16    epoch, 16 random bytes
//	offset 4096  slots of 16 bytes: up uint64, down uint64
//
// The worker holds a shared lock on the file (flock) for as long as it lives,
// so that a daemon that starts after a crash can wait for the old worker's
// real end before it reads the last values.
package counters
