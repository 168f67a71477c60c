package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const (
	fileName    = "node.db"
	layout      = 1
	lockTimeout = time.Second
	// initialMapSize is how much of the file bbolt maps at first, in bytes of address space.
	// To map more, bbolt first copies everything that the open transaction refers to.
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
	ErrInUse = errors.New("the state folder is in use by another node-agent; stop that one first (systemctl stop node-agent), or give this one another --state-dir")
	// ErrCorrupt means that the file, or a value in it, is not what this package writes.
	ErrCorrupt = errors.New("the state file is damaged; move it away and register the node again (a copy of it is needed to recover what was not yet delivered)")
	// ErrNotRegistered means that the node has no identity yet.
	ErrNotRegistered = errors.New("this node is not registered; run 'node-agent register TOKEN' first")
)

// Store is the open file. Its methods may be called by any goroutine.
//
// It has three parts that share transactions:
//
//	the ledger   slots, their owners, and accounts: Assign, Collect, Commit, Release, Flush
//	the outbox   batches for Core: Next, Done, Split, SetAside, Compact
//	the rest     identity, configurations, sessions
//
// Each method that changes something does it in one transaction, which bbolt writes to the
// disk before it returns. A crash at any instruction leaves the state before the call or the
// state after it. Accounting and the batch that it leads to are written together, so that a
// byte is in an account or in a batch, never in both and never in none.
//
// Lock order: a method that uses the ledger takes mu first and begins its transaction then;
// bbolt lets one writing transaction run at a time. The outbox and the rest do not take mu.
// Functions that are called with mu held end in Locked.
type Store struct {
	db        *bbolt.DB
	lastWrite time.Time // of a previous process
	maxUsed   int64     // bytes; see Compact

	mu        sync.Mutex // guards ledger and accounted
	ledger    ledger
	accounted map[string]*traffic // what clients moved since Open, by engine
}

// Path returns the path of the state file in dir. Whether the file exists tells whether the
// node is registered: see cmd/node-agent/unregistered.go.
func Path(dir string) string { return filepath.Join(dir, fileName) }

// Open opens the store in dir, or creates both; dir gets mode 0700. One process at a time can
// have the store open: ErrInUse. A damaged file gives ErrCorrupt.
func Open(dir string) (_ *Store, err error) {
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	path := Path(dir)
	if err := checkKind(path); err != nil {
		return nil, err
	}
	// bbolt checks little of what it reads: a damaged page leads to a panic, or to a memory
	// fault in the mapping.
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

// prepare creates missing buckets, checks the layout and reads the ledger.
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
			if err := meta.Put(keyLayout, binary.BigEndian.AppendUint32(nil, layout)); err != nil {
				return err
			}
		case len(have) != 4 || binary.BigEndian.Uint32(have) != layout:
			return fmt.Errorf("%w: it has layout %x, this version reads %d", ErrCorrupt, have, layout)
		}
		if meta.Get(keyBatchKeys) == nil { // a new file, or one of an earlier version
			return putJSON(meta, keyBatchKeys, newBatchKeys())
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

// LastWrite is when a previous process wrote to the file last; zero where there was none.
func (s *Store) LastWrite() time.Time { return s.lastWrite }

func bigEndian32(n uint32) []byte  { return binary.BigEndian.AppendUint32(nil, n) }
func bigEndianSeq(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
func bigEndian64(n uint64) []byte  { return binary.BigEndian.AppendUint64(nil, n) }
