package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

const (
	fileName    = "node.db"
	layout      = 1
	lockTimeout = time.Second
	// initialMapSize is how much of the file bbolt maps at once, in bytes of address space:
	// where it has to map more, it copies all that a transaction holds first.
	initialMapSize = 256 << 20
)

var (
	bucketMeta   = []byte("meta")
	bucketSlots  = []byte("slots")
	bucketPages  = []byte("pages")
	bucketOnline = []byte("online")
	bucketAside  = []byte("aside")

	keyLayout = []byte("layout")
)

var (
	// ErrInUse means that another process has the state folder.
	ErrInUse = errors.New("the state folder is in use by another node-agent; stop that one first (systemctl stop node-agent), or give this one a --state-dir of its own")
	// ErrCorrupt means that the file cannot be read as what it should be.
	ErrCorrupt = errors.New("the state file is damaged; move it away and register the node again (a copy of it is needed to recover what was not yet delivered)")
	// ErrNotRegistered means that the node has no identity yet.
	ErrNotRegistered = errors.New("this node is not registered; run 'node-agent register TOKEN' first")
)

// Store is the open file. Its methods may be called by any goroutine.
type Store struct {
	db        *bbolt.DB
	lastWrite time.Time // of an earlier process
	maxUsed   int64     // bytes

	mu        sync.Mutex // guards what follows
	ledger    ledger
	accounted map[string]*traffic // of clients since the start, by engine
}

// Open opens or makes the store in dir, which it creates with mode 0700. One
// process at a time has it.
func Open(dir string) (_ *Store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w; create it or give another --state-dir", err)
	}
	path := filepath.Join(dir, fileName)
	// bbolt checks little of what it reads: a damaged page shows as a panic or
	// a fault while the mapping is read.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("open %s: %w (%v)", path, ErrCorrupt, r)
		}
	}()
	var lastWrite time.Time
	if info, err := os.Stat(path); err == nil {
		lastWrite = info.ModTime()
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, InitialMmapSize: initialMapSize})
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Store{db: db, lastWrite: lastWrite, maxUsed: maxUsed, accounted: map[string]*traffic{}}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return s, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open %s: %w", path, ErrInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("open %s: %w (%w)", path, ErrCorrupt, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open %s: %w; run as the user that owns the state folder", path, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EROFS), errors.Is(err, unix.EIO):
		return fmt.Errorf("open %s: %w; mend the file system of the state folder", path, err)
	}
	return fmt.Errorf("open %s: %w (%w)", path, ErrCorrupt, err)
}

func (s *Store) prepare() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		names := [][]byte{bucketMeta, bucketSlots, bucketPages, bucketOnline, bucketAside}
		for _, kind := range Kinds {
			names = append(names, []byte(kind))
		}
		for _, name := range names {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("make bucket %s: %w", name, err)
			}
		}
		meta := tx.Bucket(bucketMeta)
		switch have := meta.Get(keyLayout); {
		case have == nil:
			return meta.Put(keyLayout, binary.BigEndian.AppendUint32(nil, layout))
		case len(have) != 4 || binary.BigEndian.Uint32(have) != layout:
			return fmt.Errorf("%w: it has layout %x, this version reads %d", ErrCorrupt, have, layout)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.loadLedgerLocked()
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// LastWrite is when an earlier process wrote last, zero where there was none.
func (s *Store) LastWrite() time.Time { return s.lastWrite }

func bigEndian32(n uint32) []byte  { return binary.BigEndian.AppendUint32(nil, n) }
func bigEndianSeq(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
func bigEndian64(n uint64) []byte  { return binary.BigEndian.AppendUint64(nil, n) }
