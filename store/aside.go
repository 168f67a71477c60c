package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Aside is a batch that was set aside: Core refused it for good, and it is kept until an
// operator decides what to do with it.
type Aside struct {
	ID     uint64    `json:"id"`
	Kind   Kind      `json:"kind"`
	Rows   int       `json:"rows"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"` // UTC; when it was set aside
}

// asideRecord is an Aside as it is stored.
type asideRecord struct {
	Kind   Kind      `json:"kind"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Record record    `json:"record"`
}

// SetAside moves a batch from its queue to those that are set aside, with the reason. It
// returns ErrNoBatch where the batch is not in its queue.
func (s *Store) SetAside(now time.Time, batch Batch, reason string) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if _, err := getRecord(tx, batch); err != nil {
			return err
		}
		return setAside(tx, now, batch.Kind, bigEndian64(batch.Seq), reason)
	})
}

func setAside(tx *bbolt.Tx, now time.Time, kind Kind, key []byte, reason string) error {
	queue, aside := tx.Bucket([]byte(kind)), tx.Bucket(bucketAside)
	raw := queue.Get(key)
	if raw == nil {
		return fmt.Errorf("set aside %s batch %x: %w", kind, key, ErrNoBatch)
	}
	kept := asideRecord{Kind: kind, Reason: reason, At: now.UTC()}
	if err := json.Unmarshal(raw, &kept.Record); err != nil {
		return fmt.Errorf("%w: %s batch %x: %w", ErrCorrupt, kind, key, err)
	}
	seq, err := aside.NextSequence()
	if err != nil {
		return fmt.Errorf("number a batch that is set aside: %w", err)
	}
	if err := putJSON(aside, bigEndian64(seq), kept); err != nil {
		return err
	}
	return queue.Delete(key)
}

// setAllAside sets every batch of every queue aside.
func setAllAside(tx *bbolt.Tx, now time.Time, reason string) error {
	for _, kind := range Kinds {
		var keys [][]byte
		if err := tx.Bucket([]byte(kind)).ForEach(func(k, _ []byte) error {
			keys = append(keys, slices.Clone(k))
			return nil
		}); err != nil {
			return err
		}
		for _, key := range keys {
			if err := setAside(tx, now, kind, key, reason); err != nil {
				return err
			}
		}
	}
	return nil
}

// ListAside returns the batches that are set aside, the oldest first.
func (s *Store) ListAside() ([]Aside, error) {
	list := []Aside{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketAside).ForEach(func(k, v []byte) error {
			kept, err := decodeAside(k, v)
			list = append(list, Aside{ID: bigEndianSeq(k), Kind: kept.Kind, Rows: kept.Record.Rows, Reason: kept.Reason, At: kept.At})
			return err
		})
	})
	return list, err
}

// ShowAside returns the request body, JSON, of a batch that is set aside. It returns ErrNoBatch
// for an unknown id, as RetryAside and DropAside do.
func (s *Store) ShowAside(id uint64) (body []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		kept, err := getAside(tx, id)
		if err != nil {
			return err
		}
		body = slices.Clone(kept.Record.JSON)
		if kept.Record.Usage != nil {
			body, err = usageBody(kept.Record.Usage)
		}
		return err
	})
	return body, err
}

// RetryAside moves a batch back to the end of its queue. It keeps its Idempotency-Key.
func (s *Store) RetryAside(id uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		kept, err := getAside(tx, id)
		if err != nil {
			return err
		}
		if err := put(tx, kept.Kind, kept.Record); err != nil {
			return err
		}
		return tx.Bucket(bucketAside).Delete(bigEndian64(id))
	})
}

// DropAside deletes a batch that is set aside.
func (s *Store) DropAside(id uint64) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if _, err := getAside(tx, id); err != nil {
			return err
		}
		return tx.Bucket(bucketAside).Delete(bigEndian64(id))
	})
}

func getAside(tx *bbolt.Tx, id uint64) (asideRecord, error) {
	raw := tx.Bucket(bucketAside).Get(bigEndian64(id))
	if raw == nil {
		return asideRecord{}, fmt.Errorf("batch %d: %w", id, ErrNoBatch)
	}
	return decodeAside(bigEndian64(id), raw)
}

func decodeAside(k, v []byte) (asideRecord, error) {
	var kept asideRecord
	if err := json.Unmarshal(v, &kept); err != nil {
		return kept, fmt.Errorf("%w: batch %x that is set aside: %w", ErrCorrupt, k, err)
	}
	return kept, nil
}
