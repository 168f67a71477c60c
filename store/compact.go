package store

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
)

// What waits long is merged, so that a month without Core stays small: rows
// older than a day to hours, older than a week to days. Their recordedAt
// coarsens, their sum does not. A batch that was tried once is left as it is:
// Core may have taken it, and would count it again under another key.
const (
	hourlyAfter = 24 * time.Hour
	dailyAfter  = 7 * 24 * time.Hour

	// maxUsed bounds what the outbox may fill, in bytes of the file in use. A
	// month at 10,000 active clients needs less than half of it.
	maxUsed = 1 << 30
)

// Trimmed tells what Compact had to do at the bound.
type Trimmed struct {
	UsedBytes     int64
	AsideDropped  int // batches that Core had refused for good, the oldest
	EventsDropped int // session events, the oldest
}

// Compact merges what waits long. trimmed is nil unless the outbox has reached
// its bound: then all usage that was not tried is merged to days, which loses
// no byte; and where that is not enough, the older half is dropped of the session events
// or of what Core has refused for good, whichever fills more.
func (s *Store) Compact(now time.Time) (trimmed *Trimmed, err error) {
	if err := s.merge(now.Add(-dailyAfter), 24*time.Hour); err != nil {
		return nil, err
	}
	if err := s.merge(now.Add(-hourlyAfter), time.Hour); err != nil {
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
	if s.size(bucketAside) > s.size([]byte(KindEvents)) {
		trimmed.AsideDropped, err = s.dropOldAside()
	} else {
		trimmed.EventsDropped, err = s.dropOldEvents()
	}
	return trimmed, err
}

// used is how much of the file is in use, in bytes.
func (s *Store) used() (int64, error) {
	var used int64
	err := s.db.View(func(tx *bbolt.Tx) error {
		used = tx.Size() - int64(s.db.Stats().FreePageN)*int64(s.db.Info().PageSize)
		return nil
	})
	return used, err
}

// merge merges the usage made before a time to a grain, one period a
// transaction.
func (s *Store) merge(before time.Time, grain time.Duration) error {
	for after := uint64(0); ; {
		var group []storedBatch
		// Found and merged in one transaction: between two, a batch could be
		// sent, and then count again under the sum's key.
		if err := s.db.Update(func(tx *bbolt.Tx) (err error) {
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

type storedBatch struct {
	seq uint64
	record
}

// nextGroup returns the next run of batches of one period that are finer than
// the grain.
func nextGroup(tx *bbolt.Tx, after uint64, before time.Time, grain time.Duration) ([]storedBatch, error) {
	var group []storedBatch
	cursor := tx.Bucket([]byte(KindUsage)).Cursor()
	for k, v := cursor.Seek(bigEndian64(after + 1)); k != nil; k, v = cursor.Next() {
		b := storedBatch{seq: bigEndianSeq(k)}
		if err := json.Unmarshal(v, &b.record); err != nil {
			return nil, fmt.Errorf("%w: usage batch %x: %w", ErrCorrupt, k, err)
		}
		period := b.CreatedAt.Truncate(grain)
		switch {
		case period.Add(grain).After(before): // it is not over
		case b.Tried || b.Usage == nil || b.Grain >= grain:
		case len(group) > 0 && !group[0].CreatedAt.Truncate(grain).Equal(period):
			return group, nil
		default:
			group = append(group, b)
		}
	}
	return group, nil
}

func mergeGroup(tx *bbolt.Tx, group []storedBatch, grain time.Duration) error {
	type key struct {
		rowKey
		at int64
	}
	sums := map[key]*wire.UsageEntry{}
	for _, b := range group {
		entries, err := decodeUsage(b.Usage)
		if err != nil {
			return err
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
		return cmp.Or(a.RecordedAt.Compare(b.RecordedAt), cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.NodeProtocolID, b.NodeProtocolID))
	})
	bucket := tx.Bucket([]byte(KindUsage))
	for _, b := range group {
		if err := bucket.Delete(bigEndian64(b.seq)); err != nil {
			return err
		}
	}
	// There are no more batches than before, so their places are enough.
	i := 0
	for rows := range slices.Chunk(merged, batchRows) {
		r := record{Key: rand.Text(), CreatedAt: group[0].CreatedAt, Rows: len(rows), Usage: encodeUsage(rows), Grain: grain}
		if err := putJSON(bucket, bigEndian64(group[i].seq), r); err != nil {
			return err
		}
		i++
	}
	return nil
}

// dropOldEvents removes the older half of the session events that wait.
func (s *Store) dropOldEvents() (dropped int, err error) {
	err = s.dropOlderHalf([]byte(KindEvents), func(v []byte) error {
		var r record
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("%w: events batch: %w", ErrCorrupt, err)
		}
		dropped += r.Rows
		return nil
	})
	return dropped, err
}

// dropOldAside removes the older half of the batches that are set aside; of one, that.
func (s *Store) dropOldAside() (dropped int, err error) {
	err = s.dropOlderHalf(bucketAside, func([]byte) error { dropped++; return nil })
	return dropped, err
}

// size is what a bucket fills, in bytes.
func (s *Store) size(bucket []byte) (size int) {
	_ = s.db.View(func(tx *bbolt.Tx) error { // an open file can be read
		stats := tx.Bucket(bucket).Stats()
		size = stats.LeafInuse + stats.BranchInuse
		return nil
	})
	return size
}

func (s *Store) dropOlderHalf(of []byte, goes func(v []byte) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(of)
		half := (bucket.Inspect().KeyN + 1) / 2
		var keys [][]byte
		cursor := bucket.Cursor()
		for k, v := cursor.First(); k != nil && len(keys) < half; k, v = cursor.Next() {
			if err := goes(v); err != nil {
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
