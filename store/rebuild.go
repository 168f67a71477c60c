package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/store/salvage"
)

const (
	// keptSuffix stands between the name of the state file and the time in the name of a
	// damaged file that is kept.
	keptSuffix = ".damaged-"
	// maxKept is how many damaged files are kept.
	maxKept = 3
	// rebuildBatch is how many bytes are copied in one transaction.
	rebuildBatch = 16 << 20
)

// rebuild replaces a file whose structure is damaged by one with what is left of it. The damaged
// one is kept under a name with the time. It is not replaced on an error.
func rebuild(path string, damaged *os.File) error {
	fail := func(err error) error {
		if errors.Is(err, ErrCorrupt) {
			return err
		}
		hint := cmp.Or(hintFor(err), "make room on the file system of the state folder, and see that it can be written")
		return fmt.Errorf("pages of the state file are damaged, and what is left of it can't be copied to a new file: %w; %s", err, hint)
	}
	info, err := damaged.Stat()
	if err != nil {
		return fail(err)
	}
	kept := path + keptSuffix + time.Now().UTC().Format("20060102T150405.000Z")
	fresh := path + ".rebuilding"
	if err := errors.Join(removeIfThere(fresh), copyLeft(fresh, damaged, info, kept)); err != nil {
		return fail(errors.Join(err, removeIfThere(fresh)))
	}
	if err := keep(path, kept, damaged, info); err != nil {
		return fail(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fail(err)
	}
	dropKept(path)
	if err := syncPath(filepath.Dir(path)); err != nil {
		return fail(err)
	}
	return nil
}

// copyLeft makes a file at fresh with what is left of the damaged one.
func copyLeft(fresh string, damaged *os.File, info os.FileInfo, kept string) (err error) {
	db, err := bbolt.Open(fresh, info.Mode().Perm(), &bbolt.Options{NoSync: true, NoGrowSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("make the new file: %w", err)
	}
	r := &rebuilder{db: db}
	report, err := salvage.Read(damaged, info.Size(), salvage.Visitor{Bucket: r.bucket, Value: r.value})
	if err == nil {
		err = r.finish(report, kept)
	}
	if err := errors.Join(err, r.rollback(), db.Close()); err != nil {
		return err
	}
	// The file gets the owner of the damaged one: root may run a command.
	if err := chownAs(fresh, info); err != nil {
		return err
	}
	return syncPath(fresh)
}

// rebuilder writes what is left of a damaged file into a new one.
type rebuilder struct {
	db   *bbolt.DB
	tx   *bbolt.Tx // nil for none
	size int       // bytes that were written in tx
	// homeless is how many values have no checksum that fits, and no place.
	homeless int
	copied   int // values
}

// begin returns the transaction, or begins the next one.
func (r *rebuilder) begin() (tx *bbolt.Tx, err error) {
	if r.size > rebuildBatch {
		r.size = 0
		tx, r.tx = r.tx, nil
		if err := tx.Commit(); err != nil {
			return nil, fmt.Errorf("write the new file: %w", err)
		}
	}
	if r.tx == nil {
		if r.tx, err = r.db.Begin(true); err != nil {
			return nil, fmt.Errorf("write the new file: %w", err)
		}
	}
	return r.tx, nil
}

func (r *rebuilder) rollback() error {
	if r.tx == nil {
		return nil
	}
	return r.tx.Rollback()
}

func (r *rebuilder) bucket(name []byte, sequence uint64) error {
	if !slices.Contains(buckets, string(name)) {
		return nil
	}
	tx, err := r.begin()
	if err != nil {
		return err
	}
	bucket, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	return bucket.SetSequence(sequence)
}

// value puts a value into the bucket in which it fits. by is the bucket by which it was reached.
func (r *rebuilder) value(by, key, value []byte) error {
	name, sure := home(string(by), key, value)
	if name == "" {
		r.homeless++
		return nil
	}
	tx, err := r.begin()
	if err != nil {
		return err
	}
	bucket, err := tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	if bucket.Get(key) != nil && !sure {
		r.homeless++
		return nil
	}
	r.copied++
	r.size += len(key) + len(value)
	return bucket.Put(slices.Clone(key), value)
}

// home returns the bucket of a value, empty where nothing tells. by is the bucket by which it was
// reached, empty for none. sure tells that its checksum fits; a value that fits nowhere goes on to
// where it was reached, and is set aside there.
func home(by string, key, value []byte) (name string, sure bool) {
	if slices.Contains(buckets, by) {
		if sealed, err := checkSum(by, key, value); sealed && err == nil {
			return by, true
		}
	}
	if name := sealedHome(key, value); name != "" {
		return name, true
	}
	if name := unsummedHome(key, value); name != "" {
		return name, false
	}
	switch {
	case slices.Contains(buckets, by):
		return by, false
	case len(key) == 4 && len(value) == pageSize:
		return bucketPages, false
	case len(key) == 4 && len(value) == pageSumSize:
		return bucketSums, false
	case slices.ContainsFunc(metaKeys, func(known []byte) bool { return string(known) == string(key) }):
		return bucketMeta, false
	}
	return "", false
}

// sealedHome returns the bucket that the checksum of a value fits, empty for none.
func sealedHome(key, value []byte) string {
	for _, name := range buckets {
		if sealed, err := checkSum(name, key, value); sealed && err == nil {
			return name
		}
	}
	return ""
}

// unsummedHome returns the bucket of a JSON value that an earlier version wrote, by its members;
// empty where they do not tell.
func unsummedHome(key, value []byte) string {
	var v struct {
		Source, Usage, Path, EventType string
		Record                         json.RawMessage
		JSON                           []byte `json:"json"`
	}
	if sealed, _ := checkSum("", key, value); sealed || json.Unmarshal(value, &v) != nil {
		return ""
	}
	switch {
	case len(key) == 4 && v.Source != "":
		return bucketSlots
	case v.EventType != "":
		return bucketOnline
	case len(key) != 8:
		return ""
	case v.Record != nil:
		return bucketAside
	case v.Usage != "", strings.HasPrefix(string(v.JSON), `{"entries":`):
		return string(KindUsage)
	case v.Path != "":
		return string(KindReports)
	case strings.HasPrefix(string(v.JSON), `{"items":`):
		return string(KindOutbound)
	case strings.HasPrefix(string(v.JSON), `{"events":`):
		return string(KindEvents)
	}
	return ""
}

// finish notes in the new file what the damage means, and ends the last transaction.
func (r *rebuilder) finish(report salvage.Report, kept string) error {
	tx, err := r.begin()
	if err != nil {
		return err
	}
	for _, name := range buckets {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("make bucket %s: %w", name, err)
		}
	}
	if err := repairSequences(tx); err != nil {
		return err
	}
	if report.SteppedBack {
		if err := markAllTried(tx); err != nil {
			return err
		}
	}
	if r.copied == 0 {
		return fmt.Errorf("%w (nothing in it can be read: %s)", ErrCorrupt, report.Problems[0])
	}
	lost := report.LostPages + report.LostValues + r.homeless
	if lost > 0 { // what is missing may have said who is let in, and how far traffic is accounted
		for _, mark := range [][]byte{keyUncertain, keyNarrow} {
			if err := tx.Bucket([]byte(bucketMeta)).Put(mark, []byte{1}); err != nil {
				return fmt.Errorf("mark the new file: %w", err)
			}
		}
	}
	text := fmt.Sprintf("%d places of the file's structure are damaged, the first: %s; %d pages and %d values are lost; the damaged file is kept as %s",
		report.Found, strings.Join(report.Problems[:min(3, len(report.Problems))], "; "), report.LostPages, report.LostValues+r.homeless, kept)
	if report.SteppedBack {
		text += "; the last change before the damage may be missing"
	}
	if err := addDamaged(tx, damagedRecord{Bucket: fileItself, Key: []byte(filepath.Base(kept)), Reason: text, At: time.Now().UTC()}); err != nil {
		return err
	}
	r.tx = nil
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write the new file: %w", err)
	}
	return nil
}

// markAllTried marks every batch as one that was sent: the transaction that is missing may have
// marked one. Such a batch keeps its key, and is not merged.
func markAllTried(tx *bbolt.Tx) error {
	for _, kind := range Kinds {
		batches := map[string]record{}
		if err := tx.Bucket([]byte(kind)).ForEach(func(k, v []byte) error {
			if r, err := decodeRecord(kind, k, v); err == nil && !r.Tried { // what is damaged is never sent
				batches[string(k)] = r
			}
			return nil
		}); err != nil {
			return fmt.Errorf("read %s batches: %w", kind, err)
		}
		for k, r := range batches {
			r.Tried = true
			if err := putJSON(tx, string(kind), []byte(k), r); err != nil {
				return err
			}
		}
	}
	return nil
}

// keep gives the damaged file a second name, or copies it where the file system has no links.
func keep(path, kept string, damaged *os.File, info os.FileInfo) error {
	if os.Link(path, kept) == nil {
		return nil
	}
	out, err := os.OpenFile(kept, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return fmt.Errorf("keep the damaged file: %w", err)
	}
	// A part that the disk cannot read ends the copy. What can be read is in the new file.
	_, _ = io.Copy(out, io.NewSectionReader(damaged, 0, info.Size()))
	return errors.Join(chownAs(kept, info), out.Close())
}

// dropKept removes the oldest damaged files beyond maxKept. It is no harm where that fails.
func dropKept(path string) {
	all, _ := filepath.Glob(path + keptSuffix + "*") // the names sort by time
	for len(all) > maxKept {
		_ = os.Remove(all[0])
		all = all[1:]
	}
}
