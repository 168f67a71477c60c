package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	fileName    = "node.db"
	layout      = 1 // see also layoutChanges
	lockTimeout = time.Second
	// initialMapSize is how much of the file bbolt maps at first, in bytes of address space.
	// To map more, bbolt first copies everything that the open transaction refers to.
	initialMapSize = 256 << 20
)

const (
	bucketMeta    = "meta"
	bucketSlots   = "slots"
	bucketPages   = "pages"
	bucketSums    = "sums"
	bucketOnline  = "online"
	bucketAside   = "aside"
	bucketDamaged = "damaged"
	bucketSpare   = "spare"
	bucketChanges = "changes"
)

// buckets are the names of all buckets.
var buckets = append([]string{bucketMeta, bucketSlots, bucketPages, bucketSums, bucketOnline, bucketAside, bucketDamaged, bucketSpare, bucketChanges},
	string(KindUsage), string(KindOutbound), string(KindEvents), string(KindReports))

// keyLayout is in the bucket meta, and again in the bucket spare.
var keyLayout = []byte("layout")

var (
	// ErrInUse means that another process has the state folder.
	ErrInUse = errors.New("the state folder is in use by another node-agent; stop that one first (systemctl stop node-agent), or give this one another --state-dir")
	// ErrCorrupt means that the file is not what this package writes, so that nothing in it can
	// be found.
	ErrCorrupt = errors.New("the state file is damaged; put a copy of it back, or move it away and register the node again (keep it: what was not yet delivered is in it)")
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

	unreported atomic.Bool // there may be damaged values that Core was not told of

	mu        sync.Mutex // guards what follows
	ledger    ledger
	accounted map[string]*traffic // what clients moved since Open, by engine
	latest    latest
}

// Path returns the path of the state file in dir. Whether the file exists tells whether the
// node is registered: see cmd/node-agent/unregistered.go.
func Path(dir string) string { return filepath.Join(dir, fileName) }

// FreeMapped gives the pages of the file back that reads have brought into this process's memory. One that
// is needed again comes from the page cache.
func (s *Store) FreeMapped() {
	_ = s.db.View(func(tx *bbolt.Tx) error { // a transaction keeps the mapping where it is
		page := int64(os.Getpagesize())
		_, _, errno := unix.Syscall(unix.SYS_MADVISE, s.db.Info().Data, uintptr(tx.Size()/page*page), unix.MADV_DONTNEED)
		return errno
	})
}

// Copy writes a copy of the file, as it is at one moment, into the folder dir, in which Open finds it.
func (s *Store) Copy(dir string) error {
	if err := s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(Path(dir), 0o600) }); err != nil {
		return fmt.Errorf("copy the state file: %w", err)
	}
	return nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// LastWrite is when a previous process wrote to the file last; zero where there was none.
func (s *Store) LastWrite() time.Time { return s.lastWrite }

func bigEndian32(n uint32) []byte  { return binary.BigEndian.AppendUint32(nil, n) }
func bigEndianSeq(k []byte) uint64 { return binary.BigEndian.Uint64(k) }
func bigEndian64(n uint64) []byte  { return binary.BigEndian.AppendUint64(nil, n) }
