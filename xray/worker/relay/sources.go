package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nodeagent/internal/occupancy"
)

// SourcesFile is the name of the file in the runtime folder. It ends with the version: a worker of a
// build with another layout has a file of its own, and gets no datagrams by their sources.
const SourcesFile = "datagram-sources-2"

const (
	sourcesHeader  = 4096
	sourcesEntries = 1 << 16
	sourcesWindow  = 16 // entries that are looked at for one source
	// refreshEvery is how far in seconds an entry's end may be behind before it is written again.
	refreshEvery = 2
	// forever is the end of an entry that its worker removes by itself.
	forever = 1<<28 - 1
	// waiting is forever for a client's whole address of which the worker has an association whose first
	// datagram has not come.
	waiting = forever - 1
	// tryLife is the life in seconds of a source that was answered once: its address may be forged.
	tryLife = 30
)

// Sources is the file in which the workers of a node tell each other which of them serves the datagrams
// of a source: an address and port of a client, at a port of the node. The file is mapped into memory and
// has 65,536 entries of eight bytes, in native byte order, since the file never leaves the host:
//
//	offset 0     for each lane (package occupancy): the generation of the worker that shares, uint32
//	offset 4096  entries: 31 bits of the keyed hash of the source, one bit for a firm entry, four bits with
//	             the lane (from 1 on; 0 for a vacant entry), and 28 bits with the second of CLOCK_MONOTONIC
//	             up to which it holds
//
// An entry stands at most 16 places behind the one that the other bits of its hash name. Where these are
// full, a firm source takes the place of the one that ends first of those that are not firm, and a source
// that is held forever that of any which ends. Another source is not noted then: its client begins anew when
// another worker takes over. So strangers with forged addresses displace nobody. An entry of a worker that has ended counts for nothing. No method waits, and any goroutine may call them.
type Sources struct {
	table   *occupancy.Table
	file    *os.File
	data    []byte
	joined  *[occupancy.MostWorkers]atomic.Uint32
	entries *[sourcesEntries]atomic.Uint64
	keys    [3]uint64
	// began is the moment at which CLOCK_MONOTONIC showed beganAt seconds.
	began   time.Time
	beganAt uint32
}

// OpenSources maps the file at path, which it makes where there is none. key is the same in all workers
// of a node, and secret: clients that knew it could choose sources that fill one window.
func OpenSources(path string, table *occupancy.Table, key []byte) (_ *Sources, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of datagrams' sources: %w", err)
	}
	s := &Sources{table: table, file: file}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("use the file of datagrams' sources %s: %w", path, err), s.Close())
		}
	}()
	// The space is allocated at once: a full file system would kill a process that writes.
	const size = sourcesHeader + sourcesEntries*8
	if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		return nil, err
	}
	if s.data, err = unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		return nil, err
	}
	s.began, s.beganAt = time.Now(), uint32(clock.Sec)
	s.joined = (*[occupancy.MostWorkers]atomic.Uint32)(unsafe.Pointer(&s.data[0]))
	s.entries = (*[sourcesEntries]atomic.Uint64)(unsafe.Pointer(&s.data[sourcesHeader]))
	secret := derive(key, "datagrams' sources")
	for i := range s.keys {
		s.keys[i] = binary.NativeEndian.Uint64(secret[8*i:])
	}
	for i := range s.entries { // the entries of the worker that had this lane before
		if e := entryOf(s.entries[i].Load()); e.lane == table.Lane() {
			s.entries[i].Store(0)
		}
	}
	s.joined[table.Lane()].Store(table.Started(table.Lane()))
	return s, nil
}

// Close gives the file up. No other method may be called afterwards.
func (s *Sources) Close() error {
	var err error
	if s.data != nil {
		err = unix.Munmap(s.data)
	}
	return errors.Join(err, s.file.Close())
}

// shares reports whether the worker of a lane lives and tells of its sources.
func (s *Sources) shares(lane int) bool {
	return s.table.Lives(lane) && s.joined[lane].Load() == s.table.Started(lane)
}

// withdraw makes all entries of this worker count for nothing.
func (s *Sources) withdraw() { s.joined[s.table.Lane()].Store(0) }

func (s *Sources) now() uint32 { return s.beganAt + uint32(time.Since(s.began)/time.Second) }

// sourceEntry is one entry, decoded. lane is -1 for a vacant one.
type sourceEntry struct {
	tag   uint32
	firm  bool
	lane  int
	until uint32
}

func entryOf(word uint64) sourceEntry {
	return sourceEntry{uint32(word >> 33), word>>32&1 == 1, int(word>>28&0xf) - 1, uint32(word & forever)}
}

func (e sourceEntry) word() uint64 {
	word := uint64(e.tag)<<33 | uint64(e.lane+1)<<28 | uint64(e.until)
	if e.firm {
		word |= 1 << 32
	}
	return word
}

// sourceHash is a keyed hash: the place of an entry in its first 16 bits, the tag in its last 31.
type sourceHash uint64

func (h sourceHash) tag() uint32 { return uint32(h) & (1<<31 - 1) }

// hash returns the hash of a source at a port of the node. The port of the client is zero for all of its
// address.
func (s *Sources) hash(port uint16, client netip.AddrPort) sourceHash {
	address := client.Addr().As16()
	fold := func(a, b uint64) uint64 { high, low := bits.Mul64(a, b); return high ^ low }
	h := fold(binary.NativeEndian.Uint64(address[:8])^s.keys[0], binary.NativeEndian.Uint64(address[8:])^s.keys[1])
	return sourceHash(fold(h^uint64(port)<<16^uint64(client.Port()), s.keys[2]|1))
}

func (s *Sources) at(h sourceHash, i int) *atomic.Uint64 {
	return &s.entries[(int(h>>48)+i)%sourcesEntries]
}

// holding says how a worker holds a source.
type holding struct {
	until uint32 // a second, forever or waiting
	first uint32 // until, while the source is not noted yet; zero for the same
	alone bool   // a source that another worker serves stays with that one
	firm  bool   // the listener bounds its sources by itself
}

// hold notes that this worker serves a source.
func (s *Sources) hold(h sourceHash, want holding) {
	for !s.tryHold(h, want) { // another goroutine or worker was faster
	}
}

// tryHold returns false where the entry has changed meanwhile.
func (s *Sources) tryHold(h sourceHash, want holding) bool {
	entry := sourceEntry{h.tag(), want.firm, s.table.Lane(), want.until}
	now := s.now()
	var place *atomic.Uint64
	var was uint64
	lowest := uint32(1)
	switch {
	case want.until >= waiting:
		lowest = 2 * forever
	case want.firm:
		lowest = forever
	}
	for i := range sourcesWindow {
		at := s.at(h, i)
		word := at.Load()
		e := entryOf(word)
		if e.tag == entry.tag && e.lane == entry.lane {
			if e.until == want.until || want.until < waiting && e.until+refreshEvery > want.until {
				return true
			}
			return at.CompareAndSwap(word, entry.word())
		}
		rank := s.rank(e, now)
		if rank > 0 && want.alone && e.tag == entry.tag && s.shares(e.lane) {
			return true
		}
		if rank < lowest {
			lowest, place, was = rank, at, word
		}
	}
	if place == nil {
		return true
	}
	if want.first != 0 {
		entry.until = want.first
	}
	return place.CompareAndSwap(was, entry.word())
}

// rank tells which entries stay where another one needs a place: the ones with a higher rank. It is zero for
// an entry that counts for nothing, more than forever for a firm one, and twice that for one without an end.
func (s *Sources) rank(e sourceEntry, now uint32) uint32 {
	switch {
	case e.lane < 0 || e.until < now || e.until >= waiting && !s.shares(e.lane):
		return 0
	case e.until >= waiting:
		return 2 * forever
	case e.firm:
		return forever + e.until
	}
	return max(e.until, 1)
}

// leave takes back the note of hold.
func (s *Sources) leave(h sourceHash) {
	for i := range sourcesWindow {
		at := s.at(h, i)
		for {
			word := at.Load()
			if e := entryOf(word); e.tag != h.tag() || e.lane != s.table.Lane() || at.CompareAndSwap(word, 0) {
				break
			}
		}
	}
}

// holders calls each with the entry of every worker that serves a source.
func (s *Sources) holders(h sourceHash, each func(sourceEntry)) {
	now := s.now()
	for i := range sourcesWindow {
		e := entryOf(s.at(h, i).Load())
		if e.tag == h.tag() && e.lane >= 0 && e.until >= now && (e.lane == s.table.Lane() || s.shares(e.lane)) {
			each(e)
		}
	}
}

// laneOf returns the lane of the worker that serves a source at a port of the node: one that serves this
// port of the client, or else one that has an association of its address.
func (s *Sources) laneOf(port uint16, client netip.AddrPort, serving int) (lane int, is bool) {
	if lane, is = s.bestOf(s.hash(port, client), serving); is {
		return lane, true
	}
	return s.bestOf(s.hash(port, netip.AddrPortFrom(client.Addr(), 0)), serving)
}

// bestOf returns the worker that gets the datagrams of a source, of those that hold it: one with an
// association that waits for its first datagram, since a new port is rather its client's; else the one that
// serves, this one, or the one that started last.
func (s *Sources) bestOf(h sourceHash, serving int) (lane int, is bool) {
	rank := func(e sourceEntry) (rank uint64) {
		switch e.lane {
		case serving:
			rank = 1 << 33
		case s.table.Lane():
			rank = 1 << 32
		default:
			rank = uint64(s.table.Started(e.lane))
		}
		if e.until == waiting {
			rank |= 1 << 34
		}
		return rank
	}
	lane = -1
	highest := uint64(0)
	s.holders(h, func(e sourceEntry) {
		if r := rank(e); lane < 0 || r > highest {
			lane, highest = e.lane, r
		}
	})
	return lane, lane >= 0
}
