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
const SourcesFile = "datagram-sources-1"

const (
	sourcesHeader  = 4096
	sourcesEntries = 1 << 16
	sourcesWindow  = 16 // entries that are looked at for one source
	// refreshEvery is how far in seconds an entry's end may be behind before it is written again.
	refreshEvery = 2
	// forever is the end of an entry that its worker removes by itself.
	forever = 1<<28 - 1
)

// Sources is the file in which the workers of a node tell each other which of them serves the datagrams
// of a source: an address and port of a client, at a port of the node. The file is mapped into memory and
// has 65,536 entries of eight bytes, in native byte order, since the file never leaves the host:
//
//	offset 0     for each lane (package occupancy): the generation of the worker that shares, uint32
//	offset 4096  entries: 32 bits of the keyed hash of the source, four bits with the lane (from 1 on;
//	             0 for a vacant entry), and 28 bits with the second of CLOCK_MONOTONIC up to which it holds
//
// An entry stands at most 16 places behind the one that the other bits of its hash name. Where these are
// full, the source is not noted: its client begins anew when another worker takes over. An entry of a
// worker that has ended counts for nothing. No method waits, and any goroutine may call them.
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
	for i := range s.entries { // what the worker before had on this lane
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

// sourceEntry is what one entry says. lane is -1 for a vacant one.
type sourceEntry struct {
	tag   uint32
	lane  int
	until uint32
}

func entryOf(word uint64) sourceEntry {
	return sourceEntry{uint32(word >> 32), int(word>>28&0xf) - 1, uint32(word & forever)}
}

func (e sourceEntry) word() uint64 {
	return uint64(e.tag)<<32 | uint64(e.lane+1)<<28 | uint64(e.until)
}

// sourceHash is a keyed hash: the place of an entry in its first 16 bits, the tag in its last 32.
type sourceHash uint64

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

// hold notes that this worker serves a source until the second that is given. Where alone is true, a
// source that another worker serves stays with that one.
func (s *Sources) hold(h sourceHash, until uint32, alone bool) {
	want := sourceEntry{uint32(h), s.table.Lane(), until}
	now := s.now()
	var vacant *atomic.Uint64
	var was uint64
	for i := range sourcesWindow {
		at := s.at(h, i)
		word := at.Load()
		e := entryOf(word)
		switch lasts := e.lane >= 0 && e.until >= now && (e.until < forever || s.shares(e.lane)); {
		case e.tag == want.tag && e.lane == want.lane:
			if e.until+refreshEvery <= until {
				at.CompareAndSwap(word, want.word())
			}
			return
		case lasts && alone && e.tag == want.tag && s.shares(e.lane):
			return
		case !lasts && vacant == nil:
			vacant, was = at, word
		}
	}
	if vacant != nil {
		vacant.CompareAndSwap(was, want.word()) // where another was faster, the next answer notes it
	}
}

// leave takes back what hold noted.
func (s *Sources) leave(h sourceHash) {
	for i := range sourcesWindow {
		at := s.at(h, i)
		word := at.Load()
		if e := entryOf(word); e.tag == uint32(h) && e.lane == s.table.Lane() {
			at.CompareAndSwap(word, 0)
		}
	}
}

// holders calls each with the lane of every worker that serves a source.
func (s *Sources) holders(h sourceHash, each func(lane int)) {
	now := s.now()
	for i := range sourcesWindow {
		e := entryOf(s.at(h, i).Load())
		if e.tag == uint32(h) && e.lane >= 0 && e.until >= now && (e.lane == s.table.Lane() || s.shares(e.lane)) {
			each(e.lane)
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

// bestOf returns which of the workers that hold a source gets its datagrams: the one that serves, this one,
// or the one that started last.
func (s *Sources) bestOf(h sourceHash, serving int) (lane int, is bool) {
	rank := func(l int) uint64 {
		switch l {
		case serving:
			return 1 << 33
		case s.table.Lane():
			return 1 << 32
		}
		return uint64(s.table.Started(l))
	}
	lane = -1
	s.holders(h, func(l int) {
		if lane < 0 || rank(l) > rank(lane) {
			lane = l
		}
	})
	return lane, lane >= 0
}
