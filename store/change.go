package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Change is what Core changed in the current configuration, as it sent it. A configuration with a
// hundred thousand clients has megabytes, and a change of one client some hundred bytes: the store
// keeps the changes beside the configuration until the next whole one comes.
type Change struct {
	BaseRevision int64  `json:"baseRevision"` // of the configuration that it changes
	Base         string `json:"base"`         // and its ETag
	Revision     int64  `json:"revision"`     // that the change leads to
	ETag         string `json:"etag"`
	Delta        []byte `json:"delta"` // in the form of package coreclient/wire/delta
	// Proved tells that the configuration until now has proved good: see History.Applied.
	Proved bool `json:"proved,omitempty"`
	// Come and Gone are what the change adds to History.Admitted, and what it takes away.
	Come []byte `json:"come,omitempty"`
	Gone []byte `json:"gone,omitempty"`
}

const (
	// maxChanges bounds how many changes are kept, and with them how long a start takes.
	maxChanges = 2000
	// minChangeBytes is how many bytes of changes are always kept; beyond it, no more than
	// changesShare times those of the configuration as it is packed, which is about as many as
	// the configuration has itself.
	minChangeBytes = 256 << 10
	changesShare   = 4
	// packFrom is how many bytes a delta has at least that is packed.
	packFrom = 4 << 10
)

// layoutChanges is the layout of a file that has changes. Versions before them would serve the
// configuration without its changes: they refuse this layout.
const layoutChanges = 2

// latest is what Change needs to know of the history.
type latest struct {
	known bool
	etag  string // of the current configuration, with its changes
	plain bool   // the current configuration runs as a whole, and as its text says
	count int    // of changes
	bytes int    // of changes
	limit int    // of bytes
}

// latestOf returns what Change needs to know.
func latestOf(h History) latest {
	l := latest{known: true, plain: h.Current != nil && h.GivenUp == nil && h.Pending == nil && !h.Unconfirmed && !h.Narrow, count: len(h.Changes)}
	if h.Current == nil {
		return l
	}
	l.etag, l.limit = h.Current.ETag, max(minChangeBytes, changesShare*len(h.Current.Body))
	for _, c := range h.Changes {
		l.etag = c.ETag
		l.bytes += len(c.Delta)
	}
	return l
}

// CanChange reports whether Change would take a change of so many bytes of the configuration with
// the ETag: it is the current one, runs as a whole, and there is room.
func (s *Store) CanChange(etag string, size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.latest.known {
		h, err := s.History()
		if err != nil {
			return false
		}
		s.latest = latestOf(h)
	}
	l := s.latest
	return l.plain && l.etag == etag && l.count < maxChanges && l.bytes+size <= l.limit
}

// Change stores a change of the current configuration for which CanChange has returned true, and
// the attributions of the owners, which all have a slot: those that the change touches. What they
// counted until now keeps its previous attribution. counters may be nil.
func (s *Store) Change(now time.Time, counters Counters, change Change, owners []Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.latest.known {
		return fmt.Errorf("store a change of revision %d: the current configuration is not known", change.Revision)
	}
	slots := make([]uint32, len(owners))
	for i, owner := range owners {
		slot, known := s.ledger.slotOf(owner)
		if !known {
			return fmt.Errorf("store a change of revision %d: %s %s has no slot", change.Revision, owner.Tag, owner.Engine)
		}
		slots[i] = slot
	}
	err := s.updateSlotsLocked(now, counters, slots, func(c *collection) error {
		for i, slot := range slots {
			if !s.ledger.sameAttribution(slot, owners[i]) {
				c.closeOut(slot)
				c.owners[slot] = &owners[i]
			}
		}
		return putChange(c.tx, change)
	})
	if err != nil {
		s.latest = latest{}
		return err
	}
	s.latest.etag = change.ETag
	s.latest.count++
	s.latest.bytes += len(change.Delta)
	return nil
}

// storedChange is a Change in the file. A long delta is in Packed.
type storedChange struct {
	Change
	Packed Packed `json:"packed,omitempty"`
}

func putChange(tx *bbolt.Tx, change Change) (err error) {
	stored := storedChange{Change: change}
	if len(change.Delta) >= packFrom {
		if stored.Packed, err = Pack(change.Delta); err != nil {
			return err
		}
		stored.Delta = nil
	}
	bucket := tx.Bucket([]byte(bucketChanges))
	sequence, err := bucket.NextSequence()
	if err != nil {
		return err
	}
	return errors.Join(putLayout(tx, layoutChanges), putJSON(tx, bucketChanges, bigEndian64(sequence), stored))
}

// readChanges returns the changes in their order.
func readChanges(tx *bbolt.Tx) (changes []Change, err error) {
	bucket := tx.Bucket([]byte(bucketChanges))
	if bucket == nil {
		return nil, nil
	}
	var bad damages
	err = bucket.ForEach(func(k, v []byte) error {
		var stored storedChange
		err := decode(bucketChanges, k, v, &stored)
		if err == nil && stored.Packed != nil {
			if stored.Delta, err = stored.Packed.Unpack(); err != nil {
				err = damagedValue(bucketChanges, k, err)
			}
		}
		if err != nil {
			return bad.pass(err)
		}
		changes = append(changes, stored.Change)
		return nil
	})
	if err := errors.Join(err, bad.err()); err != nil {
		return nil, err
	}
	return changes, nil
}

// addChanges adds the changes to a history without them. Those that follow a gap have lost their
// base: the history then ends before them, and is narrow. base is the configuration that the first
// one changes, nil where it was damaged: then nothing tells whether a first one is lost too.
func (h *History) addChanges(base *Config, changes []Change) {
	whole := true
	for i, c := range changes {
		switch {
		case i > 0:
			whole = whole && c.Base == changes[i-1].ETag
		case base != nil && !h.Unconfirmed: // an unconfirmed one has lost its ETag
			whole = c.Base == base.ETag
		}
		if h.Current != nil && whole && (i > 0 || c.BaseRevision == h.Current.Revision) && len(h.Changes) == i {
			h.Changes = append(h.Changes, c)
		}
	}
	if len(h.Changes) < len(changes) {
		h.Narrow = true
	}
	switch {
	case len(changes) == 0 || h.Admitted == nil:
	case !whole: // what was lost may have removed clients
		h.Admitted = nil
	default:
		h.Admitted = admittedAfter(h.Admitted, changes)
	}
}

// admittedAfter returns who is let in after the changes.
func admittedAfter(admitted []byte, changes []Change) []byte {
	in := map[string]bool{}
	set := func(prints []byte, value bool) {
		for print := range slices.Chunk(prints, 8) {
			in[string(print)] = value
		}
	}
	set(admitted, true)
	for _, c := range changes {
		set(c.Gone, false)
		set(c.Come, true)
	}
	after := make([]byte, 0, 8*len(in))
	for print, is := range in {
		if is {
			after = append(after, print...)
		}
	}
	return after
}

// dropChanges removes the changes, once a whole configuration has them.
func dropChanges(tx *bbolt.Tx) error {
	bucket := tx.Bucket([]byte(bucketChanges))
	if bucket == nil {
		return nil
	}
	if key, _ := bucket.Cursor().First(); key == nil {
		return putLayout(tx, layout)
	}
	if err := tx.DeleteBucket([]byte(bucketChanges)); err != nil {
		return err
	}
	if _, err := tx.CreateBucket([]byte(bucketChanges)); err != nil {
		return err
	}
	return putLayout(tx, layout)
}

// putLayout stores the layout, unless the file has it.
func putLayout(tx *bbolt.Tx, layout uint32) error {
	for _, name := range []string{bucketMeta, bucketSpare} {
		bucket := tx.Bucket([]byte(name))
		if bytes.Equal(bucket.Get(keyLayout), bigEndian32(layout)) {
			continue
		}
		if err := bucket.Put(keyLayout, bigEndian32(layout)); err != nil {
			return fmt.Errorf("store the layout: %w", err)
		}
	}
	return nil
}
