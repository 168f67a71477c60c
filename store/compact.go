package store

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
)

// Old usage rows are merged, so that the file stays small during a month without Core: those
// older than a day to one row per hour, those older than a week to one row per day. recordedAt
// becomes coarser; the sums stay. A batch that was sent once is left as it is: Core may have
// taken it, and would count it again under another key.
const (
	hourlyAfter = 24 * time.Hour
	dailyAfter  = 7 * 24 * time.Hour
	// outboundsAfter is how long the sums of outbounds wait before they are merged. They have no
	// time of their own, so that nothing becomes coarser.
	outboundsAfter = time.Hour

	// maxUsed bounds how many bytes of the file are in use. A month at 10,000 active clients
	// needs less than half of it.
	maxUsed = 1 << 30
)

// Trimmed is what Compact did because the file was full.
type Trimmed struct {
	UsedBytes     int64 // before
	AsideDropped  int   // batches that were set aside
	EventsDropped int   // session events
}

// Compact merges old usage rows and the sums of outbounds. trimmed is nil unless the file is full. In a full file it
// merges all usage that was not sent yet to days, which loses no byte. Where that is not
// enough, it drops the older half of the session events or of the batches that are set aside,
// whichever takes more space.
func (s *Store) Compact(now time.Time) (trimmed *Trimmed, err error) {
	if err := s.merge(now.Add(-dailyAfter), 24*time.Hour); err != nil {
		return nil, err
	}
	if err := s.merge(now.Add(-hourlyAfter), time.Hour); err != nil {
		return nil, err
	}
	if err := s.mergeOutbounds(now.Add(-outboundsAfter)); err != nil {
		return nil, err
	}
	used, err := s.used()
	if err != nil || used < s.maxUsed {
		return nil, err
	}
	if err := s.merge(now, 24*time.Hour); err != nil {
		return nil, err
	}
	trimmed = &Trimmed{UsedBytes: used}
	if used, err = s.used(); err != nil || used < s.maxUsed {
		return trimmed, err
	}
	if s.size([]byte(bucketAside)) > s.size([]byte(KindEvents)) {
		trimmed.AsideDropped, err = s.dropOldAside()
	} else {
		trimmed.EventsDropped, err = s.dropOldEvents()
	}
	return trimmed, err
}

// used returns how many bytes of the file are in use.
func (s *Store) used() (int64, error) {
	var used int64
	err := s.db.View(func(tx *bbolt.Tx) error {
		used = tx.Size() - int64(s.db.Stats().FreePageN)*int64(s.db.Info().PageSize)
		return nil
	})
	return used, err
}

// merge merges the usage rows of all periods of length grain that ended before a time, one
// period in each transaction.
func (s *Store) merge(before time.Time, grain time.Duration) error {
	for after := uint64(0); ; {
		var group []storedBatch
		// Found and merged in one transaction: between two transactions, the courier could
		// send a batch, which would then count again under the key of the merged one.
		if err := s.update(func(tx *bbolt.Tx) (err error) {
			if group, err = nextGroup(tx, after, before, grain); err != nil || len(group) == 0 {
				return err
			}
			return mergeGroup(tx, group, grain)
		}); err != nil {
			return fmt.Errorf("merge usage: %w", err)
		}
		if len(group) == 0 {
			return nil
		}
		after = group[len(group)-1].seq
	}
}

// storedBatch is a record and its place in the queue.
type storedBatch struct {
	seq uint64
	record
}

// nextGroup returns the batches of the next period after a sequence that can be merged to the
// grain; none where there is no such period.
func nextGroup(tx *bbolt.Tx, after uint64, before time.Time, grain time.Duration) ([]storedBatch, error) {
	var group []storedBatch
	var period time.Time // of the group, by what its rows say: a batch is made after its minute
	cursor := tx.Bucket([]byte(KindUsage)).Cursor()
	for k, v := cursor.Seek(bigEndian64(after + 1)); k != nil; k, v = cursor.Next() {
		r, err := decodeRecord(KindUsage, k, v)
		if err != nil {
			return nil, err
		}
		if r.Tried || r.Usage == nil || r.Grain >= grain {
			continue
		}
		first, err := firstMinute(r.Usage)
		if err != nil {
			return nil, damagedValue(string(KindUsage), k, err)
		}
		began := first.Truncate(grain)
		switch {
		case began.Add(grain).After(before): // the period is not over
		case len(group) > 0 && !began.Equal(period):
			return group, nil
		default:
			period = began
			group = append(group, storedBatch{seq: bigEndianSeq(k), record: r})
		}
	}
	return group, nil
}

// mergeGroup replaces the batches of one period by merged ones.
func mergeGroup(tx *bbolt.Tx, group []storedBatch, grain time.Duration) error {
	type key struct {
		rowKey
		at int64
	}
	sums := map[key]*wire.UsageEntry{}
	for _, b := range group {
		entries, err := decodeUsage(b.Usage)
		if err != nil {
			return damagedValue(string(KindUsage), bigEndian64(b.seq), err)
		}
		for _, e := range entries {
			e.RecordedAt = e.RecordedAt.Truncate(grain)
			k := key{rowKey{userID: e.UserID, nodeProtocolID: e.NodeProtocolID}, e.RecordedAt.Unix()}
			if e.SubscriptionID != nil {
				k.subscriptionID, k.hasSubscription = *e.SubscriptionID, true
			}
			if sum := sums[k]; sum != nil {
				sum.BytesUp += e.BytesUp
				sum.BytesDown += e.BytesDown
			} else {
				sums[k] = &e
			}
		}
	}
	merged := make([]wire.UsageEntry, 0, len(sums))
	for _, e := range sums {
		merged = append(merged, *e)
	}
	slices.SortFunc(merged, func(a, b wire.UsageEntry) int {
		return cmp.Or(a.RecordedAt.Compare(b.RecordedAt), compareEntries(a, b))
	})
	keys := []string{"merged"}
	bucket := tx.Bucket([]byte(KindUsage))
	for _, b := range group {
		keys = append(keys, b.Key)
		if err := bucket.Delete(bigEndian64(b.seq)); err != nil {
			return err
		}
	}
	// Merging makes no more batches than there were, so their sequences are enough.
	i := 0
	for rows := range slices.Chunk(merged, batchRows) {
		r := record{Key: derivedKey(append(keys, fmt.Sprint(i))...), CreatedAt: group[0].CreatedAt, Rows: len(rows), Usage: encodeUsage(rows), Grain: grain}
		if err := putJSON(tx, string(KindUsage), bigEndian64(group[i].seq), r); err != nil {
			return err
		}
		i++
	}
	return nil
}

// dropOldEvents deletes the older half of the batches of session events, and returns how many
// events they had.
func (s *Store) dropOldEvents() (dropped int, err error) {
	err = s.dropOlderHalf([]byte(KindEvents), func(v []byte) error {
		var r record
		if json.Unmarshal(v, &r) == nil { // what cannot be read is dropped too
			dropped += r.Rows
		}
		return nil
	})
	return dropped, err
}

// dropOldAside deletes the older half of the batches that are set aside, at least one.
func (s *Store) dropOldAside() (dropped int, err error) {
	err = s.dropOlderHalf([]byte(bucketAside), func([]byte) error { dropped++; return nil })
	return dropped, err
}

// size returns how many bytes a bucket takes.
func (s *Store) size(bucket []byte) (size int) {
	_ = s.db.View(func(tx *bbolt.Tx) error { // an open file can be read
		stats := tx.Bucket(bucket).Stats()
		size = stats.LeafInuse + stats.BranchInuse
		return nil
	})
	return size
}

// dropOlderHalf deletes the older half of a bucket, rounded up. It calls deleted with each
// value first.
func (s *Store) dropOlderHalf(of []byte, deleted func(v []byte) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(of)
		half := (bucket.Inspect().KeyN + 1) / 2
		var keys [][]byte
		cursor := bucket.Cursor()
		for k, v := cursor.First(); k != nil && len(keys) < half; k, v = cursor.Next() {
			if err := deleted(v); err != nil {
				return err
			}
			keys = append(keys, slices.Clone(k))
		}
		for _, k := range keys {
			if err := bucket.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}
