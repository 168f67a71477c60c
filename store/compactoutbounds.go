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

const (
	// mergedAtOnce and mergedBytes bound what one transaction merges, in batches and in bytes of
	// their JSON.
	mergedAtOnce = 1000
	mergedBytes  = 8 << 20
)

// mergeOutbounds merges the batches of outbounds that were made before a time and not sent: a
// node without traffic of clients makes one every minute, and after a month without Core there
// would be 43,200 of them.
func (s *Store) mergeOutbounds(before time.Time) error {
	for from, more := uint64(0), true; more; {
		if err := s.update(func(tx *bbolt.Tx) error {
			group, err := nextOutbounds(tx, from, before)
			if err != nil || len(group) < 2 {
				more = false
				return err
			}
			from = group[0].seq // the merged batch is the first of the next group
			left, err := mergeOutboundGroup(tx, group)
			more = left < len(group)
			return err
		}); err != nil {
			return fmt.Errorf("merge outbound usage: %w", err)
		}
	}
	return nil
}

// nextOutbounds returns the next batches from a sequence on that can be merged.
func nextOutbounds(tx *bbolt.Tx, from uint64, before time.Time) (group []storedBatch, err error) {
	bytes := 0
	cursor := tx.Bucket([]byte(KindOutbound)).Cursor()
	for k, v := cursor.Seek(bigEndian64(from)); k != nil && len(group) < mergedAtOnce && bytes < mergedBytes; k, v = cursor.Next() {
		r, err := decodeRecord(KindOutbound, k, v)
		if err != nil {
			return nil, err
		}
		if !r.CreatedAt.Before(before) {
			break
		}
		if r.Tried || r.JSON == nil {
			continue
		}
		bytes += len(r.JSON)
		group = append(group, storedBatch{seq: bigEndianSeq(k), record: r})
	}
	return group, nil
}

// mergeOutboundGroup replaces the batches by merged ones, and returns how many these are.
func mergeOutboundGroup(tx *bbolt.Tx, group []storedBatch) (left int, err error) {
	sums := map[string]*wire.OutboundUsageItem{}
	keys := []string{"merged"}
	for _, b := range group {
		var body wire.OutboundUsageRequest
		if err := json.Unmarshal(b.JSON, &body); err != nil {
			return 0, damagedValue(string(KindOutbound), bigEndian64(b.seq), err)
		}
		for _, item := range body.Items {
			if sum := sums[item.Tag]; sum != nil {
				sum.BytesUp += item.BytesUp
				sum.BytesDown += item.BytesDown
			} else {
				sums[item.Tag] = &item
			}
		}
		keys = append(keys, b.Key)
	}
	items := make([]wire.OutboundUsageItem, 0, len(sums))
	for _, item := range sums {
		items = append(items, *item)
	}
	slices.SortFunc(items, func(a, b wire.OutboundUsageItem) int { return cmp.Compare(a.Tag, b.Tag) })
	chunks := slices.Collect(slices.Chunk(items, batchRows))
	if len(chunks) >= len(group) {
		return len(group), nil
	}
	bucket := tx.Bucket([]byte(KindOutbound))
	for _, b := range group {
		if err := bucket.Delete(bigEndian64(b.seq)); err != nil {
			return 0, err
		}
	}
	for i, rows := range chunks {
		raw, err := json.Marshal(wire.OutboundUsageRequest{Items: rows})
		if err != nil {
			return 0, fmt.Errorf("encode outbound batch: %w", err)
		}
		r := record{Key: derivedKey(append(keys, fmt.Sprint(i))...), CreatedAt: group[0].CreatedAt, Rows: len(rows), JSON: raw}
		if err := putJSON(tx, string(KindOutbound), bigEndian64(group[i].seq), r); err != nil {
			return 0, err
		}
	}
	return len(chunks), nil
}
