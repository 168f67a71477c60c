package occupancy

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	version    = 2
	headerSize = 4096
	entries    = 1 << 16
	entrySize  = 64
	window     = 64 // entries that are looked at for one person
	// lanes is how many workers count at the same time. The entry of a person has one cache line: more
	// lanes would need a second one. Each upgrade within xray.drain_timeout leaves one worker that drains.
	lanes = 12
	// keysLock is the byte of the file whose lock guards the keys. The lanes' locks are those of
	// the bytes from 0 on.
	keysLock = 64
	// lookEvery is how often Shared looks again whether another worker lives.
	lookEvery = 100 * time.Millisecond
	// lockWait bounds the wait for the lock of the keys, and lockAgain is how often it is tried. Its
	// holder needs some microseconds, unless it was stopped (SIGSTOP, a debugger, a frozen cgroup).
	lockWait  = 20 * time.Millisecond
	lockAgain = 200 * time.Microsecond
	// stuckFor is how long Lock does not wait after a wait in vain, so that a crowd of clients
	// behind one lock that is stuck does not add up its waits.
	stuckFor = time.Second
)

// FileName is the name of the file in the runtime folder. It ends with the version: a worker of a
// build with another layout, which drains beside this one, counts in a file of its own.
const FileName = "open-connections-2"

type header struct {
	version, generation atomic.Uint32
	workers             [lanes]struct {
		started atomic.Uint32 // the generation with which the worker of this lane started
		does    atomic.Uint32 // begins, drains or serves
	}
}

// What a worker does.
const (
	begins uint32 = iota // it takes no datagrams of other workers yet, or never will
	drains               // it takes no new connections any more
	serves               // it takes new connections, also those whose datagrams other workers pass on
)

type entry struct {
	person, place atomic.Uint64
	open          [lanes]atomic.Uint32
}

func (e *entry) vacant() bool {
	for i := range e.open {
		if e.open[i].Load() > 0 {
			return false
		}
	}
	return true
}

// Table is the mapped file, with the lane of this process. Its methods may be called by any
// goroutine. Those of a nil Table do nothing.
type Table struct {
	file   *os.File
	data   []byte
	header *header
	lane   int

	keys  sync.Mutex // together with the lock of the byte keysLock
	stuck time.Time  // until then Lock does not wait; guarded by keys

	look   sync.Mutex    // guards the fields below, which Shared reads without it where they are atomic
	seen   atomic.Uint32 // the generation at the last look
	alive  [lanes]bool
	others atomic.Bool // one of alive
	next   time.Time
}

// Place is where a person has connections open. It is valid until Leave was called as often as
// Enter returned it.
type Place struct{ open *atomic.Uint32 }

// Open maps the file at path, which it makes where there is none, and takes a lane. It returns an
// error if no lane is free.
func Open(path string) (_ *Table, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the file of open connections: %w", err)
	}
	t := &Table{file: file, lane: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("use the file of open connections %s: %w", path, err), t.Close())
		}
	}()
	// The space is allocated at once: a full file system would kill a process that counts.
	const size = headerSize + entries*entrySize
	if err := unix.Fallocate(int(file.Fd()), 0, 0, size); err != nil {
		return nil, err
	}
	if t.data, err = unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	t.header = (*header)(unsafe.Pointer(&t.data[0]))
	if v := t.header.version.Load(); !t.header.version.CompareAndSwap(0, version) && v != version {
		return nil, fmt.Errorf("it has version %d, this version reads %d; remove it when no worker runs", v, version)
	}
	for lane := range lanes {
		if t.lock(unix.F_OFD_SETLK, int64(lane), unix.F_WRLCK) == nil {
			t.lane = lane
			break
		}
	}
	if t.lane < 0 {
		return nil, fmt.Errorf("%d workers use it already", lanes)
	}
	for i := range entries { // what the worker before had on this lane
		t.entry(uint64(i)).open[t.lane].Store(0)
	}
	own := &t.header.workers[t.lane]
	own.does.Store(begins)
	own.started.Store(t.header.generation.Load() + 1)
	t.header.generation.Add(1)
	return t, nil
}

// MostWorkers is how many workers count at the same time.
const MostWorkers = lanes

// Lane returns the number of this worker, from 0 to MostWorkers-1, and -1 for a nil Table. No other
// worker that lives has it.
func (t *Table) Lane() int {
	if t == nil {
		return -1
	}
	return t.lane
}

// Serve tells the other workers that they may pass on new connections to this one. It does nothing
// after Drain.
func (t *Table) Serve() {
	if t != nil {
		t.header.workers[t.lane].does.CompareAndSwap(begins, serves)
	}
}

// Drain tells the other workers that this one takes no new connections.
func (t *Table) Drain() {
	if t != nil {
		t.header.workers[t.lane].does.Store(drains)
	}
}

// Serving returns the number of the worker to which new connections are passed on: of the others that
// live and for which Serve holds, the one that started last. It returns false where there is none.
func (t *Table) Serving() (lane int, is bool) {
	if !t.Shared() {
		return 0, false
	}
	t.look.Lock()
	alive := t.alive
	t.look.Unlock()
	newest := uint32(0)
	for other := range lanes {
		w := &t.header.workers[other]
		if alive[other] && w.does.Load() == serves && w.started.Load() > newest {
			lane, is, newest = other, true, w.started.Load()
		}
	}
	return lane, is
}

// Living returns the numbers of the other workers that live.
func (t *Table) Living() (lanes []int) {
	if !t.Shared() {
		return nil
	}
	t.look.Lock()
	defer t.look.Unlock()
	for lane, alive := range t.alive {
		if alive {
			lanes = append(lanes, lane)
		}
	}
	return lanes
}

// Lives reports whether the worker of a lane lives. It is at most lookEvery behind.
func (t *Table) Lives(lane int) bool {
	if t == nil || lane < 0 || lane >= lanes {
		return false
	}
	if lane == t.lane {
		return true
	}
	if !t.Shared() {
		return false
	}
	t.look.Lock()
	defer t.look.Unlock()
	return t.alive[lane]
}

// Started tells the workers apart that have had a lane: it is higher for each of them.
func (t *Table) Started(lane int) uint32 { return t.header.workers[lane].started.Load() }

// Close gives the lane up. No Place may be used afterwards.
func (t *Table) Close() error {
	if t == nil {
		return nil
	}
	var err error
	if t.data != nil {
		err = unix.Munmap(t.data)
	}
	return errors.Join(err, t.file.Close())
}

func (t *Table) entry(i uint64) *entry {
	return (*entry)(unsafe.Pointer(&t.data[headerSize+i%entries*entrySize]))
}

func (t *Table) lock(command int, at int64, kind int16) error {
	for {
		err := unix.FcntlFlock(t.file.Fd(), command, &unix.Flock_t{Type: kind, Start: at, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Lock keeps all other processes from Enter, until unlock is called. Where another process holds the
// lock for longer than lockWait, Lock goes on without it: at worst one count is another person's, and
// a limit lets one connection more in. A worker that hangs must not stall the clients of this one.
func (t *Table) Lock() (unlock func()) {
	if t == nil {
		return func() {}
	}
	t.keys.Lock()
	began := time.Now()
	err := t.lock(unix.F_OFD_SETLK, keysLock, unix.F_WRLCK)
	for err != nil && began.After(t.stuck) && time.Since(began) < lockWait {
		time.Sleep(lockAgain)
		err = t.lock(unix.F_OFD_SETLK, keysLock, unix.F_WRLCK)
	}
	if err != nil {
		if began.After(t.stuck) {
			t.stuck = time.Now().Add(stuckFor)
		}
		return t.keys.Unlock
	}
	t.stuck = time.Time{}
	return func() {
		_ = t.lock(unix.F_OFD_SETLK, keysLock, unix.F_UNLCK)
		t.keys.Unlock()
	}
}

// Enter counts a connection of the person at the place. The caller has called Lock. It returns nil
// where there is no room.
func (t *Table) Enter(person, place uint64) *Place {
	if t == nil {
		return nil
	}
	var vacant *entry
	for i := range uint64(window) {
		e := t.entry(person + i)
		who := e.person.Load()
		if who == person && e.place.Load() == place {
			return t.count(e)
		}
		if vacant == nil && e.vacant() {
			vacant = e
		}
		if who == 0 {
			break
		}
	}
	if vacant == nil {
		return nil
	}
	vacant.person.Store(person)
	vacant.place.Store(place)
	return t.count(vacant)
}

func (t *Table) count(e *entry) *Place {
	e.open[t.lane].Add(1)
	return &Place{&e.open[t.lane]}
}

// Again counts another connection at the place. It needs no Lock.
func (p *Place) Again() {
	if p != nil {
		p.open.Add(1)
	}
}

// Leave counts n connections less.
func (p *Place) Leave(n int) {
	if p != nil {
		p.open.Add(-uint32(n))
	}
}

// Shared reports whether another worker lives. It costs next to nothing where none does.
func (t *Table) Shared() bool {
	if t == nil {
		return false
	}
	if !t.others.Load() && t.seen.Load() == t.header.generation.Load() {
		return false
	}
	t.look.Lock()
	defer t.look.Unlock()
	now, generation := time.Now(), t.header.generation.Load()
	if generation == t.seen.Load() && now.Before(t.next) {
		return t.others.Load()
	}
	others := false
	for lane := range lanes {
		held := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(lane), Len: 1}
		err := unix.FcntlFlock(t.file.Fd(), unix.F_OFD_GETLK, &held)
		t.alive[lane] = lane != t.lane && err == nil && held.Type != unix.F_UNLCK
		others = others || t.alive[lane]
	}
	t.seen.Store(generation)
	t.others.Store(others)
	t.next = now.Add(lookEvery)
	return others
}

// Others calls each with what the other workers have of the person, once for each place. each must
// not call the Table.
func (t *Table) Others(person uint64, each func(place uint64, open int)) {
	if !t.Shared() {
		return
	}
	t.look.Lock()
	alive := t.alive
	t.look.Unlock()
	for i := range uint64(window) {
		e := t.entry(person + i)
		who := e.person.Load()
		if who == 0 {
			return
		}
		if who != person {
			continue
		}
		open := 0
		for lane := range lanes {
			if alive[lane] {
				open += int(e.open[lane].Load())
			}
		}
		if open > 0 {
			each(e.place.Load(), open)
		}
	}
}
