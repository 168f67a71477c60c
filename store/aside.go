package store

import (
	"cmp"
	"errors"
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
	return s.update(func(tx *bbolt.Tx) error {
		if _, err := getRecord(tx, batch); err != nil {
			return err
		}
		return setAside(tx, now, batch.Kind, bigEndian64(batch.Seq), reason)
	})
}

func setAside(tx *bbolt.Tx, now time.Time, kind Kind, key []byte, reason string) error {
	queue, aside := tx.Bucket([]byte(kind)), tx.Bucket([]byte(bucketAside))
	raw := queue.Get(key)
	if raw == nil {
		return fmt.Errorf("set aside %s batch %x: %w", kind, key, ErrNoBatch)
	}
	kept := asideRecord{Kind: kind, Reason: reason, At: now.UTC()}
	var err error
	if kept.Record, err = decodeRecord(kind, key, raw); err != nil {
		return err
	}
	seq, err := aside.NextSequence()
	if err != nil {
		return fmt.Errorf("number a batch that is set aside: %w", err)
	}
	if err := putJSON(tx, bucketAside, bigEndian64(seq), kept); err != nil {
		return err
	}
	return queue.Delete(key)
}

// setAllAside sets every batch of every queue aside.
func setAllAside(tx *bbolt.Tx, now time.Time, reason string) error {
	var bad damages
	for _, kind := range Kinds {
		var keys [][]byte
		if err := tx.Bucket([]byte(kind)).ForEach(func(k, _ []byte) error {
			keys = append(keys, slices.Clone(k))
			return nil
		}); err != nil {
			return err
		}
		for _, key := range keys {
			if err := bad.pass(setAside(tx, now, kind, key, reason)); err != nil {
				return err
			}
		}
	}
	return bad.err()
}

// ListAside returns the batches that are set aside, the oldest first.
func (s *Store) ListAside() ([]Aside, error) {
	var list []Aside
	err := s.view(func(tx *bbolt.Tx) error {
		list = []Aside{}
		var bad damages
		err := tx.Bucket([]byte(bucketAside)).ForEach(func(k, v []byte) error {
			kept, err := decodeAside(k, v)
			if err == nil {
				list = append(list, Aside{ID: bigEndianSeq(k), Kind: kept.Kind, Rows: kept.Record.Rows, Reason: kept.Reason, At: kept.At})
			}
			return bad.pass(err)
		})
		return cmp.Or(err, bad.err())
	})
	return list, err
}

// ShowAside returns the request body, JSON, of a batch that is set aside, or what is known of a
// damaged value. It returns ErrNoBatch for an unknown id, as RetryAside and DropAside do.
func (s *Store) ShowAside(id uint64) (body []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if r, found, err := getDamaged(tx, id); err != nil {
			return err
		} else if found {
			body, err = showDamaged(id, r)
			return err
		}
		kept, err := getAside(tx, id)
		if err != nil {
			return err
		}
		body = slices.Clone(kept.Record.JSON)
		if kept.Record.Usage != nil {
			if body, err = usageBody(kept.Record.Usage); err != nil {
				return damagedValue(bucketAside, bigEndian64(id), err)
			}
		}
		return err
	})
	return body, err
}

// ErrDamaged means that a batch cannot be sent.
var ErrDamaged = errors.New("it is damaged and can't be sent; 'node-agent outbox show' shows what is left of it, 'node-agent outbox drop' deletes it")

// RetryAside moves a batch back to the end of its queue. It keeps its Idempotency-Key. It returns
// ErrDamaged for a damaged value.
func (s *Store) RetryAside(id uint64) error {
	return s.update(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(bucketDamaged)).Get(bigEndian64(id)) != nil {
			return fmt.Errorf("%d: %w", id, ErrDamaged)
		}
		kept, err := getAside(tx, id)
		if err != nil {
			return err
		}
		if err := put(tx, kept.Kind, kept.Record); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketAside)).Delete(bigEndian64(id))
	})
}

// DropAside deletes a batch that is set aside, or a damaged value.
func (s *Store) DropAside(id uint64) error {
	return s.update(func(tx *bbolt.Tx) error {
		if damaged := tx.Bucket([]byte(bucketDamaged)); damaged.Get(bigEndian64(id)) != nil {
			return damaged.Delete(bigEndian64(id))
		}
		if _, err := getAside(tx, id); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketAside)).Delete(bigEndian64(id))
	})
}

func getAside(tx *bbolt.Tx, id uint64) (asideRecord, error) {
	raw := tx.Bucket([]byte(bucketAside)).Get(bigEndian64(id))
	if raw == nil {
		return asideRecord{}, fmt.Errorf("batch %d: %w", id, ErrNoBatch)
	}
	return decodeAside(bigEndian64(id), raw)
}

func decodeAside(k, v []byte) (asideRecord, error) {
	var kept asideRecord
	if len(k) != 8 {
		return kept, damagedValue(bucketAside, k, errKey)
	}
	return kept, decode(bucketAside, k, v, &kept)
}
