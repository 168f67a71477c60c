package store

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// maxDamaged bounds how many damaged values are kept, and maxDamagedBytes how many bytes
	// of them. The oldest ones are dropped beyond that.
	maxDamaged      = 200
	maxDamagedBytes = 8 << 20
	// maxDamagedKey bounds how much of a damaged key is kept, in bytes.
	maxDamagedKey = 64
)

// Damaged is a value that could not be read, and that was taken out of its place so that the rest
// goes on.
type Damaged struct {
	ID     uint64    `json:"id"`
	Bucket string    `json:"bucket"` // of package store; fileItself for pages of the file
	Key    string    `json:"key"`    // hex, or a name
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`   // UTC; when it was found
	Size   int       `json:"size"` // bytes
}

// Meaning says in one sentence what was damaged, and what follows.
func (d Damaged) Meaning() string {
	switch d.Bucket {
	case fileItself:
		return "pages of the state file were damaged; it was rebuilt from what is left"
	case bucketPages, bucketSums:
		return "the accounts of up to 256 counters were damaged; they go on from what the counters say now, and what was counted since the last row is not billed"
	case bucketSlots:
		return "the owner of a counter was damaged; what it counted since the last row is not billed"
	case bucketOnline:
		return "a session that Core was told is online was damaged; Core is not told that it ends"
	case bucketAside:
		return "a batch that Core had refused was damaged"
	case bucketMeta:
		switch d.Key {
		case string(keyConfig), string(keyPending):
			return "a stored configuration was damaged; the newest one that can be read is served, without clients that were removed since, until Core sends its own"
		case string(keyPrevious):
			return "the previous configuration was damaged; there is none to return to if the worker keeps crashing"
		case string(keyIdentity):
			return "the identity of this node was damaged; its copy is used, if that can be read"
		}
		return "a setting of the state file was damaged"
	case bucketChanges:
		return "a change of the configuration was damaged; the configuration before it is served, and clients that were removed since may be let in until Core sends its own"
	case bucketSpare:
		return "the copy of this node's identity was damaged"
	}
	return "a batch of " + d.Bucket + " was damaged; it is not delivered"
}

// fileItself is the Bucket of a Damaged that is about pages of the file.
const fileItself = "file"

// damagedRecord is a Damaged as it is stored.
type damagedRecord struct {
	Bucket string    `json:"bucket"`
	Key    []byte    `json:"key,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Size   int       `json:"size"`
	// Value is kept for batches alone. Other values are secret or can be had again.
	Value    []byte `json:"value,omitempty"`
	Reported bool   `json:"reported,omitempty"` // Core was told
}

func (r damagedRecord) public(id uint64) Damaged {
	key := hex.EncodeToString(r.Key)
	if r.Bucket == bucketMeta || r.Bucket == bucketSpare {
		key = string(r.Key)
	}
	return Damaged{ID: id, Bucket: r.Bucket, Key: key, Reason: r.Reason, At: r.At, Size: r.Size}
}

// damagedError says that values cannot be read. view and update set them aside.
type damagedError struct{ found []foundDamage }

// foundDamage is where a damaged value is.
type foundDamage struct {
	bucket string
	key    []byte
	reason string
}

func damagedValue(bucket string, key []byte, reason error) error {
	return &damagedError{[]foundDamage{{bucket, slices.Clone(key), reason.Error()}}}
}

func (e *damagedError) Error() string {
	first := e.found[0]
	return fmt.Sprintf("%v: %s %x: %s", ErrCorrupt, first.bucket, first.key, first.reason)
}

func (e *damagedError) Unwrap() error { return ErrCorrupt }

// damages collects the damaged values that a loop over a bucket meets.
type damages struct{ found []foundDamage }

// pass keeps an error that says that a value is damaged, and returns any other.
func (d *damages) pass(err error) error {
	if damaged, is := errors.AsType[*damagedError](err); is {
		d.found = append(d.found, damaged.found...)
		return nil
	}
	return err
}

// err returns the damaged values as one error, nil for none.
func (d *damages) err() error {
	if len(d.found) == 0 {
		return nil
	}
	return &damagedError{d.found}
}

// view calls read in a reading transaction. Values that read finds damaged are set aside, and read
// is called again; it must not keep anything of the call before.
func (s *Store) view(read func(*bbolt.Tx) error) error { return s.withoutDamaged(s.db.View, read) }

// update is view for a writing transaction.
func (s *Store) update(write func(*bbolt.Tx) error) error {
	return s.withoutDamaged(s.db.Update, write)
}

func (s *Store) withoutDamaged(run func(func(*bbolt.Tx) error) error, do func(*bbolt.Tx) error) error {
	for {
		err := run(do)
		damaged, is := errors.AsType[*damagedError](err)
		if !is {
			return err
		}
		if err := s.setDamagedAside(damaged.found); err != nil {
			return err
		}
	}
}

// setDamagedAside takes damaged values out of their places.
func (s *Store) setDamagedAside(found []foundDamage) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, f := range found {
			if err := moveDamaged(tx, time.Now(), f); err != nil {
				return err
			}
		}
		return trimDamaged(tx)
	})
	if err != nil {
		return fmt.Errorf("set damaged values of the state file aside: %w", err)
	}
	s.unreported.Store(true)
	return nil
}

// harmless are the keys of the bucket meta that do not say which clients are let in now.
var harmless = [][]byte{keyMinute, keyIdentity, keyAttempt, keyPrevious, keyAdmitted}

// moveDamaged takes one damaged value out of its place. The accounts or the admitted clients that the
// value had are not known from then on; the marks keep that.
func moveDamaged(tx *bbolt.Tx, now time.Time, f foundDamage) error {
	from := tx.Bucket([]byte(f.bucket))
	value := from.Get(f.key)
	if value == nil {
		return fmt.Errorf("%w: %s %x can't be taken out of its place", ErrCorrupt, f.bucket, f.key)
	}
	value = slices.Clone(value)
	if err := from.Delete(f.key); err != nil {
		return err
	}
	switch f.bucket {
	case bucketDamaged:
		return nil // it is known already that what it was about is lost
	case bucketSlots, bucketPages:
		if err := tx.Bucket([]byte(bucketMeta)).Put(keyUncertain, []byte{1}); err != nil {
			return err
		}
	case bucketChanges:
		if err := tx.Bucket([]byte(bucketMeta)).Put(keyNarrow, []byte{1}); err != nil {
			return err
		}
	case bucketMeta:
		if slices.ContainsFunc(harmless, func(key []byte) bool { return bytes.Equal(key, f.key) }) {
			break
		}
		if err := tx.Bucket([]byte(bucketMeta)).Put(keyNarrow, []byte{1}); err != nil {
			return err
		}
	}
	r := damagedRecord{Bucket: f.bucket, Key: f.key[:min(len(f.key), maxDamagedKey)], Reason: f.reason, At: now.UTC(), Size: len(value)}
	if isBatch := f.bucket == bucketAside || slices.Contains(Kinds, Kind(f.bucket)); isBatch && len(value) <= maxDamagedBytes/8 {
		r.Value = value
	}
	return addDamaged(tx, r)
}

// addDamaged stores what is known of damage. Its id is one of the batches that are set aside.
func addDamaged(tx *bbolt.Tx, r damagedRecord) error {
	id, err := tx.Bucket([]byte(bucketAside)).NextSequence()
	if err != nil {
		return fmt.Errorf("number a damaged value: %w", err)
	}
	// The sequence of this bucket counts what was ever found.
	if _, err := tx.Bucket([]byte(bucketDamaged)).NextSequence(); err != nil {
		return fmt.Errorf("count a damaged value: %w", err)
	}
	return putJSON(tx, bucketDamaged, bigEndian64(id), r)
}

// trimDamaged drops the oldest damaged values that are too many.
func trimDamaged(tx *bbolt.Tx) error {
	var drop [][]byte
	count, size := 0, 0
	cursor := tx.Bucket([]byte(bucketDamaged)).Cursor()
	for k, v := cursor.Last(); k != nil; k, v = cursor.Prev() {
		if count, size = count+1, size+len(v); count > maxDamaged || size > maxDamagedBytes {
			drop = append(drop, slices.Clone(k))
		}
	}
	for _, k := range drop {
		if err := tx.Bucket([]byte(bucketDamaged)).Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// ListDamaged returns the damaged values that are kept, the oldest first.
func (s *Store) ListDamaged() ([]Damaged, error) {
	var list []Damaged
	err := s.eachDamaged(func(id uint64, r damagedRecord) { list = append(list, r.public(id)) }, func() { list = []Damaged{} })
	return list, err
}

// eachDamaged calls do with each damaged value. It calls begin first, and again where it begins
// anew.
func (s *Store) eachDamaged(do func(id uint64, r damagedRecord), begin func()) error {
	return s.view(func(tx *bbolt.Tx) error {
		begin()
		var bad damages
		err := tx.Bucket([]byte(bucketDamaged)).ForEach(func(k, v []byte) error {
			r, err := decodeDamaged(k, v)
			if err == nil {
				do(bigEndianSeq(k), r)
			}
			return bad.pass(err)
		})
		return cmp.Or(err, bad.err())
	})
}

func decodeDamaged(k, v []byte) (r damagedRecord, err error) {
	if len(k) != 8 {
		return r, damagedValue(bucketDamaged, k, errKey)
	}
	return r, decode(bucketDamaged, k, v, &r)
}

// getDamaged returns a damaged value; false where there is none with that id.
func getDamaged(tx *bbolt.Tx, id uint64) (r damagedRecord, found bool, err error) {
	raw := tx.Bucket([]byte(bucketDamaged)).Get(bigEndian64(id))
	if raw == nil {
		return r, false, nil
	}
	r, err = decodeDamaged(bigEndian64(id), raw)
	return r, true, err
}

// showDamaged returns what is known of a damaged value, JSON, with its bytes (base64) where they
// are kept.
func showDamaged(id uint64, r damagedRecord) ([]byte, error) {
	return json.Marshal(struct {
		Damaged Damaged `json:"damaged"`
		Value   []byte  `json:"value,omitempty"`
	}{r.public(id), r.Value})
}

// Unreported returns the damaged values that Core was not told of yet.
func (s *Store) Unreported() ([]Damaged, error) {
	if !s.unreported.Swap(false) { // before the read: what is found meanwhile sets it again
		return nil, nil
	}
	var list []Damaged
	err := s.eachDamaged(func(id uint64, r damagedRecord) {
		if !r.Reported {
			list = append(list, r.public(id))
		}
	}, func() { list = nil })
	if err != nil || len(list) > 0 {
		s.unreported.Store(true)
	}
	return list, err
}

// ReportDamage queues a report about damaged values, as Report does, and notes in the same
// transaction that Core was told of them.
func (s *Store) ReportDamage(now time.Time, reported []Damaged, path string, body any) error {
	return s.update(func(tx *bbolt.Tx) error {
		for _, d := range reported {
			r, found, err := getDamaged(tx, d.ID)
			if err != nil {
				return err
			}
			if !found { // dropped meanwhile
				continue
			}
			r.Reported = true
			if err := putJSON(tx, bucketDamaged, bigEndian64(d.ID), r); err != nil {
				return err
			}
		}
		return report(tx, now, path, body)
	})
}
