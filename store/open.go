package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"nodeagent/store/salvage"
)

// Open opens the store in dir, or creates both; dir gets mode 0700. One process at a time can
// have the store open: ErrInUse. Where pages of the file are damaged, a new file gets what is left,
// and the damaged one is kept beside it. A file in which nothing can be found gives ErrCorrupt.
func Open(dir string) (_ *Store, err error) {
	if err := makeFolder(dir); err != nil {
		return nil, err
	}
	path := Path(dir)
	if err := checkKind(path); err != nil {
		return nil, err
	}
	// bbolt checks little of what it reads. What the check before did not find leads to a panic,
	// or to a memory fault in the mapping.
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
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, InitialMmapSize: initialMapSize, OpenFile: openSound,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Store{db: db, lastWrite: lastWrite, maxUsed: maxUsed, accounted: map[string]*traffic{}}
	s.unreported.Store(true)
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return s, nil
}

// openSound opens the file at path for bbolt, once its structure is sound. The file is locked as
// bbolt locks it: bbolt's own lock, on the same descriptor, changes nothing.
func openSound(path string, flag int, mode os.FileMode) (*os.File, error) {
	deadline := time.Now().Add(lockTimeout)
	for rebuilt := false; ; {
		file, again, err := openLocked(path, flag, mode, deadline)
		if err != nil {
			return nil, err
		}
		if again {
			continue
		}
		report, err := inspect(file)
		switch {
		case err == nil && report.Sound():
			return file, nil
		case err == nil && rebuilt:
			err = fmt.Errorf("%w: also what was left of it, which was copied to a new file: %s", ErrCorrupt, report.Problems[0])
		case err == nil:
			err = rebuild(path, file)
			rebuilt = true
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, err
		}
	}
}

// lockPoll is the pause between two tries to lock the file.
const lockPoll = 20 * time.Millisecond

// openLocked opens and locks the file. again tells that another process has replaced the file
// meanwhile.
func openLocked(path string, flag int, mode os.FileMode, deadline time.Time) (file *os.File, again bool, err error) {
	file, err = os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, false, err //nolint:wrapcheck // openError says what to do
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
		time.Sleep(lockPoll)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	var mine, there os.FileInfo
	if err == nil {
		mine, err = file.Stat()
	}
	if err == nil {
		there, err = os.Stat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(mine, there):
		return nil, true, file.Close() //nolint:wrapcheck // as above
	case err != nil:
		return nil, false, errors.Join(err, file.Close())
	}
	return file, false, nil
}

// inspect looks for damage in the structure of the file.
func inspect(file *os.File) (salvage.Report, error) {
	info, err := file.Stat()
	if err != nil {
		return salvage.Report{}, err //nolint:wrapcheck // openError says what to do
	}
	report, err := inspectMapped(file, info.Size())
	if errors.Is(err, errUnmapped) {
		report, err = salvage.Inspect(file, info.Size())
	}
	if err != nil {
		err = fmt.Errorf("%w (%w)", ErrCorrupt, err)
	}
	return report, err
}

// errUnmapped means that a file can't be read through a mapping.
var errUnmapped = errors.New("the file can't be mapped")

// inspectMapped is salvage.Inspect over a mapping of the file, which takes a third of the time. The kernel
// raises a signal for a page that it can't read, and the reason is not known then: the error is errUnmapped.
func inspectMapped(file *os.File, size int64) (report salvage.Report, err error) {
	if size == 0 || size != int64(int(size)) {
		return report, errUnmapped
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return report, errUnmapped
	}
	defer unix.Munmap(data) //nolint:errcheck // it is a mapping
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = errUnmapped
		}
	}()
	return salvage.Inspect(salvage.Bytes(data), size)
}

// prepare creates missing buckets, checks the layout and reads the ledger.
func (s *Store) prepare() error {
	err := s.update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return fmt.Errorf("make bucket %s: %w", name, err)
			}
		}
		if err := checkLayout(tx); err != nil {
			return err
		}
		if err := repairSequences(tx); err != nil {
			return err
		}
		if err := checkMeta(tx); err != nil {
			return err
		}
		if err := startBatchKeys(tx); err != nil {
			return err
		}
		if err := copyIdentity(tx); err != nil {
			return err
		}
		if stats := tx.Stats(); stats.GetNodeCount() == 0 {
			return errUnchanged
		}
		return nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return err
	}
	return s.loadLedgerLocked()
}

// errUnchanged ends a transaction that has changed nothing: to commit it would write to the disk twice.
// bbolt makes a node of each page that changes (Bucket.node).
var errUnchanged = errors.New("nothing has changed")

// checkLayout checks that this version knows the layout of the file, and stores it where it is not
// there yet.
func checkLayout(tx *bbolt.Tx) error {
	meta, spare := tx.Bucket([]byte(bucketMeta)), tx.Bucket([]byte(bucketSpare))
	known := bigEndian32(layout)
	have, again := meta.Get(keyLayout), spare.Get(keyLayout)
	if changes := bigEndian32(layoutChanges); bytes.Equal(have, changes) || bytes.Equal(again, changes) {
		known = changes
	}
	if have != nil && !bytes.Equal(have, known) && !bytes.Equal(again, known) {
		return fmt.Errorf("%w: it has layout %x, this version reads %d", ErrCorrupt, have, layout)
	}
	return putLayout(tx, binary.BigEndian.Uint32(known))
}

// maxSequence is the greatest sequence of a bucket whose product with seqStep is still a sequence.
const maxSequence = 1 << 48

// repairSequences repairs the sequences from which the keys of new batches come: a key must not be
// given out twice.
func repairSequences(tx *bbolt.Tx) error {
	steps := map[string]uint64{bucketAside: 1}
	for _, kind := range Kinds {
		steps[string(kind)] = seqStep
	}
	for name, step := range steps {
		bucket := tx.Bucket([]byte(name))
		last := lastKey(bucket)
		if name == bucketAside { // damaged values have their ids from it too
			last = max(last, lastKey(tx.Bucket([]byte(bucketDamaged))))
		}
		least := (last + step - 1) / step
		if have := bucket.Sequence(); have < least || have > max(least, maxSequence) {
			if err := bucket.SetSequence(least); err != nil {
				return fmt.Errorf("repair the sequence of %s: %w", name, err)
			}
		}
	}
	return nil
}

// lastKey returns the greatest key of a bucket whose keys are uint64 and not damaged.
func lastKey(bucket *bbolt.Bucket) uint64 {
	cursor := bucket.Cursor()
	for k, _ := cursor.Last(); k != nil; k, _ = cursor.Prev() {
		if len(k) == 8 && binary.BigEndian.Uint64(k) <= maxSequence*seqStep {
			return binary.BigEndian.Uint64(k)
		}
	}
	return 0
}

// metaKeys are the keys of the bucket meta.
var metaKeys = slices.Concat([][]byte{keyLayout, keyMinute, keyUncertain, keyConfig, keyPrevious, keyPending, keyAdmitted, keyNarrow, keyIdentity, keyAttempt, keyBatchKeys}, keysEpoch)

// checkMeta looks for values under a key that is damaged. A later version may have keys of its own:
// their checksums are right.
func checkMeta(tx *bbolt.Tx) error {
	var bad damages
	err := tx.Bucket([]byte(bucketMeta)).ForEach(func(k, v []byte) error {
		if slices.ContainsFunc(metaKeys, func(known []byte) bool { return bytes.Equal(known, k) }) {
			return nil
		}
		if sealed, err := checkSum(bucketMeta, k, v); sealed && err == nil {
			return nil
		}
		if _, ok := unframed(bucketMeta, k, v); ok {
			return nil
		}
		return bad.pass(damagedValue(bucketMeta, k, errNoHome))
	})
	if err != nil {
		return err //nolint:wrapcheck // nil: the function above gives none
	}
	return bad.err()
}
