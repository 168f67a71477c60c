// Package occupancy is the file in which the Xray workers of a node tell each other how many
// connections each person with limits has open, and from which addresses. While an old worker
// drains, each worker adds what the others have, so that limits over two workers are one.
//
// The file is mapped into memory and has 65,536 entries of 64 bytes, in native byte order, since
// the file never leaves the host:
//
//	offset 0     version, uint32
//	offset 4     generation, uint32: raised by each worker that starts
//	offset 8     for each of twelve lanes: the generation with which its worker started, uint32, and
//	             what that worker does, uint32: 0 it begins, 1 it drains, 2 it serves
//	offset 4096  entries: person uint64, place uint64, and for each of twelve lanes a uint32 with the
//	             number of open connections
//
// Each worker has a lane of its own, which it holds by a lock on that byte of the file (an open
// file description lock, fcntl(2)). The kernel gives the lock up when the worker dies, however it
// dies: what the worker counted is not looked at from then on, and the next worker with that lane
// clears it. Another such lock guards the keys of the entries.
//
// A worker's lane is also its number, by which the workers pass datagrams to each other
// (xray/worker/relay).
//
// An entry of a person stands at most 64 entries behind the place that its hash names. Where these
// are full, and where there are more than twelve workers, a worker counts alone.
package occupancy
