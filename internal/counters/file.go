package counters

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	layoutVersion = 1
	headerSize    = 4096
	slotSize      = 16

	// maxSlots bounds the mapping to 64 MiB of address space. Memory is used only for slots
	// that are in use.
	maxSlots = 1 << 22

	// growStep is how many slots the file grows by at a time, 1 MiB.
	growStep = 1 << 16

	// lockPoll is the pause between two tries of AwaitNoWriter.
	lockPoll = 5 * time.Millisecond
)

var magic = [8]byte{'n', 'o', 'd', 'e', 'c', 't', 'r', 0}

// ErrDamaged means that the file was not made by this package, has another layout, or is
// damaged. Its values cannot be used.
var ErrDamaged = errors.New("counters file is damaged or of another program")

// Slot is one pair of counters, in bytes. It is in shared memory, and is valid until the File
// is closed.
type Slot struct {
	Up   atomic.Uint64 // client to node
	Down atomic.Uint64 // node to client
}

// File is a mapped counters file. Any number of goroutines and processes may use its slots.
// Only the daemon, in one goroutine at a time, calls Grow.
type File struct {
	file  *os.File
	data  []byte
	epoch string
	slots atomic.Uint32 // how many the file on disk has room for
}

// Create makes a file with a new epoch at path, and replaces one that is there: a process
// that has that one open keeps it. Only this user may read the file. The caller closes it.
func Create(path string) (*File, error) {
	header := make([]byte, headerSize)
	copy(header, magic[:])
	binary.NativeEndian.PutUint32(header[8:], layoutVersion)
	_, _ = rand.Read(header[16:32]) // never fails
	binary.NativeEndian.PutUint32(header[12:], checksum(header))
	// The temporary file stands in the same folder: the runtime folder may be a file system
	// of its own.
	if err := renameio.WriteFile(path, header, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("create counters file: %w", err)
	}
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if err := f.Grow(1); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open maps the file at path. It returns os.ErrNotExist where there is none, and ErrDamaged
// where its values cannot be used. The caller closes it.
func Open(path string) (*File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open counters file: %w", err)
	}
	f, err := mapFile(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return f, nil
}

func mapFile(file *os.File) (*File, error) {
	header := make([]byte, 32)
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, headerSize), header); err != nil {
		return nil, fmt.Errorf("%w: %s: read its header: %w", ErrDamaged, file.Name(), err)
	}
	switch version := binary.NativeEndian.Uint32(header[8:]); {
	case !bytes.Equal(header[:8], magic[:]):
		return nil, fmt.Errorf("%w: %s does not begin with \"nodectr\"", ErrDamaged, file.Name())
	case version != layoutVersion:
		return nil, fmt.Errorf("%w: %s has layout version %d, this version reads %d", ErrDamaged, file.Name(), version, layoutVersion)
	case binary.NativeEndian.Uint32(header[12:]) != checksum(header):
		return nil, fmt.Errorf("%w: %s: the header's checksum does not match", ErrDamaged, file.Name())
	}
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat counters file: %w", err)
	}
	body := info.Size() - headerSize
	if body < 0 || body%slotSize != 0 || body/slotSize > maxSlots {
		return nil, fmt.Errorf("%w: %s has a size of %d bytes, which no counters file has", ErrDamaged, file.Name(), info.Size())
	}
	// The mapping is as long as the file can become, so that a slot never moves. To touch a
	// page behind the end of the file would kill the process: Slot checks that.
	data, err := unix.Mmap(int(file.Fd()), 0, headerSize+maxSlots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map counters file %s: %w", file.Name(), err)
	}
	f := &File{file: file, data: data, epoch: hex.EncodeToString(header[16:32])}
	f.slots.Store(uint32(body / slotSize))
	return f, nil
}

func checksum(header []byte) uint32 {
	sum := crc32.ChecksumIEEE(header[:12])
	return crc32.Update(sum, crc32.IEEETable, header[16:32])
}

// Epoch identifies the counters, in hex. Under another epoch, all of them began again at zero.
func (f *File) Epoch() string { return f.epoch }

// Grow makes room for at least n slots. The space is allocated at once: a full file system
// fails here, and not in a process that counts, which it would kill.
func (f *File) Grow(n uint32) error {
	have := f.slots.Load()
	if n <= have {
		return nil
	}
	if n > maxSlots {
		return fmt.Errorf("grow counters file to %d slots: the most is %d", n, maxSlots)
	}
	want := min((n+growStep-1)/growStep*growStep, maxSlots)
	from, size := headerSize+int64(have)*slotSize, int64(want-have)*slotSize
	err := unix.Fallocate(int(f.file.Fd()), 0, from, size)
	if errors.Is(err, unix.EOPNOTSUPP) { // as ramfs
		err = f.writeZeros(from, size)
	}
	if err != nil {
		return fmt.Errorf("grow counters file %s by %d bytes: %w; make room in the runtime folder", f.file.Name(), size, err)
	}
	f.slots.Store(want)
	return nil
}

// writeZeros makes the file longer, from its end on. Where it fails, the file is as before.
func (f *File) writeZeros(from, size int64) error {
	_, err := f.file.WriteAt(make([]byte, size), from)
	if err != nil {
		err = errors.Join(err, f.file.Truncate(from))
	}
	return err
}

// Slot returns the counters of slot i. Another process may have grown the file: where i is
// behind its end, Slot looks at the size again. It returns an error for a slot that the file
// does not have.
func (f *File) Slot(i uint32) (*Slot, error) {
	if i >= f.slots.Load() {
		info, err := f.file.Stat()
		if err != nil {
			return nil, fmt.Errorf("stat counters file: %w", err)
		}
		slots := (info.Size() - headerSize) / slotSize
		if int64(i) >= slots || slots > maxSlots {
			return nil, fmt.Errorf("counter slot %d is behind the end of the file, which has %d", i, slots)
		}
		f.slots.Store(uint32(slots))
	}
	return (*Slot)(unsafe.Pointer(&f.data[headerSize+int(i)*slotSize])), nil
}

// Read returns the counters of slot i, in bytes; zero for a slot that the file does not have.
func (f *File) Read(i uint32) (up, down uint64) {
	slot, err := f.Slot(i)
	if err != nil {
		return 0, 0
	}
	return slot.Up.Load(), slot.Down.Load()
}

// HoldShared marks this process as one that counts, until it ends or closes the file.
func (f *File) HoldShared() error {
	if err := unix.Flock(int(f.file.Fd()), unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock counters file: %w", err)
	}
	return nil
}

// AwaitNoWriter returns once no process counts any more, or with the error of ctx.
func (f *File) AwaitNoWriter(ctx context.Context) error {
	// A flock belongs to an open file description, which a child may have inherited (flock(2)).
	// With a second description, the lock of such a child conflicts as it should.
	own, err := os.Open(f.path())
	if err != nil {
		return fmt.Errorf("open counters file: %w", err)
	}
	defer own.Close() // releases the lock
	for {
		err := unix.Flock(int(own.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock counters file: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the previous worker has ended: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// path leads to the open file, also when another one has taken its name.
func (f *File) path() string { return fmt.Sprintf("/proc/self/fd/%d", f.file.Fd()) }

// Close unmaps the file. No Slot of it may be used afterwards. The file stays on the disk.
func (f *File) Close() error {
	return errors.Join(unix.Munmap(f.data), f.file.Close())
}
