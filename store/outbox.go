package store

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
)

// Kind is a kind of batch. Each kind has a queue of its own, which is delivered in order.
type Kind string

// The kinds of batches.
const (
	KindUsage    Kind = "usage"
	KindOutbound Kind = "outbound"
	KindEvents   Kind = "events"
	KindReports  Kind = "reports" // errors and applied revisions, in their common order
)

// Kinds are all kinds of batches.
var Kinds = []Kind{KindUsage, KindOutbound, KindEvents, KindReports}

// batchRows bounds the rows of one batch. A thousand usage rows are about 130 kB of JSON.
const batchRows = 1000

// seqStep is the distance between the sequences of two batches. It leaves room for the halves
// of a batch that is split.
const seqStep = 1 << 12

// Batch is the body of one request to Core.
type Batch struct {
	Seq  uint64 // its place in the queue
	Kind Kind
	// Key is the Idempotency-Key. It is the same for every try.
	Key       string
	CreatedAt time.Time // UTC
	Rows      int
	Path      string // of the route; empty but for reports
	Body      []byte // JSON
}

// record is a Batch as it is stored.
type record struct {
	Key       string    `json:"key"`
	CreatedAt time.Time `json:"createdAt"`
	Rows      int       `json:"rows"`
	Path      string    `json:"path,omitempty"`
	Usage     []byte    `json:"usage,omitempty"` // see usagecodec.go
	JSON      []byte    `json:"json,omitempty"`
	// Tried is set before the batch is sent first. Core may have taken it since.
	Tried bool `json:"tried,omitempty"`
	// Grain is the period that a row of a merged batch covers, 0 for a minute.
	Grain time.Duration `json:"grain,omitempty"`
}

// enqueue adds a batch of encoded usage rows to a queue. key is its Idempotency-Key.
func enqueue(tx *bbolt.Tx, kind Kind, key string, now time.Time, usage []byte, rows int) error {
	return put(tx, kind, record{Key: key, CreatedAt: now.UTC(), Rows: rows, Usage: usage})
}

// enqueueJSON adds a batch to a queue. key is its Idempotency-Key.
func enqueueJSON(tx *bbolt.Tx, kind Kind, key string, now time.Time, body any, rows int) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s batch: %w", kind, err)
	}
	return put(tx, kind, record{Key: key, CreatedAt: now.UTC(), Rows: rows, JSON: raw})
}

// put adds a record to the end of a queue.
func put(tx *bbolt.Tx, kind Kind, r record) error {
	bucket := tx.Bucket([]byte(kind))
	seq, err := bucket.NextSequence()
	if err != nil {
		return fmt.Errorf("number %s batch: %w", kind, err)
	}
	seq *= seqStep
	bucket.FillPercent = 0.9 // keys only grow, so pages are not filled up later
	return putJSON(tx, string(kind), bigEndian64(seq), r)
}

// Report queues a report: a body for one of Core's routes that take no rows. body is encoded as
// JSON.
func (s *Store) Report(now time.Time, path string, body any) error {
	return s.update(func(tx *bbolt.Tx) error { return report(tx, now, path, body) })
}

func report(tx *bbolt.Tx, now time.Time, path string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	return put(tx, KindReports, record{Key: rand.Text(), CreatedAt: now.UTC(), Rows: 1, Path: path, JSON: raw})
}

// Next returns the oldest batch of a kind, to be sent, and marks it as tried: from now on it is
// not merged any more. found is false where the queue is empty.
func (s *Store) Next(kind Kind) (batch Batch, found bool, err error) {
	return s.next(kind, func(c *bbolt.Cursor) (k, v []byte, err error) {
		k, v = c.First()
		return k, v, nil
	})
}

// NextSince is Next for the batches that were made at a time or later.
func (s *Store) NextSince(kind Kind, since time.Time) (batch Batch, found bool, err error) {
	return s.next(kind, func(c *bbolt.Cursor) (k, v []byte, err error) {
		for lastKey, lastValue := c.Last(); lastKey != nil; lastKey, lastValue = c.Prev() {
			r, err := decodeRecord(kind, lastKey, lastValue)
			if err != nil {
				return nil, nil, err
			}
			if r.CreatedAt.Before(since) {
				break
			}
			k, v = lastKey, lastValue
		}
		return k, v, nil
	})
}

// next returns the batch that pick finds, and marks it as tried.
func (s *Store) next(kind Kind, pick func(*bbolt.Cursor) (k, v []byte, err error)) (batch Batch, found bool, err error) {
	tried := false
	look := func(tx *bbolt.Tx) error {
		k, v, err := pick(tx.Bucket([]byte(kind)).Cursor())
		if found = k != nil && err == nil; !found {
			return err
		}
		batch, tried, err = decodeBatch(kind, k, v)
		return err
	}
	if err := s.view(look); err != nil || !found || tried {
		return batch, found, err
	}
	// Read again in the transaction that marks it: it may have been merged meanwhile.
	err = s.update(func(tx *bbolt.Tx) error {
		if err := look(tx); err != nil || !found || tried {
			return err
		}
		return markTried(tx, batch)
	})
	return batch, found, err
}

// markTried notes that a batch is sent.
func markTried(tx *bbolt.Tx, batch Batch) error {
	r, err := getRecord(tx, batch)
	if err != nil {
		return err
	}
	r.Tried = true
	return putJSON(tx, string(batch.Kind), bigEndian64(batch.Seq), r)
}

// getRecord returns a batch's record, ErrNoBatch where another one or none is in its place.
func getRecord(tx *bbolt.Tx, batch Batch) (record, error) {
	var r record
	key := bigEndian64(batch.Seq)
	if raw := tx.Bucket([]byte(batch.Kind)).Get(key); raw != nil {
		var err error
		if r, err = decodeRecord(batch.Kind, key, raw); err != nil {
			return r, err
		}
	}
	if r.Key != batch.Key {
		return r, fmt.Errorf("%s batch %d: %w", batch.Kind, batch.Seq, ErrNoBatch)
	}
	return r, nil
}

var (
	errKey     = errors.New("its key has a wrong length")
	errNoBody  = errors.New("it has no body that is JSON")
	errNoKey   = errors.New("it has no Idempotency-Key")
	errNoRoute = errors.New("it names no route")
)

// decodeRecord decodes a batch of a queue. The error is a *damagedError.
func decodeRecord(kind Kind, k, v []byte) (r record, err error) {
	if len(k) != 8 {
		return r, damagedValue(string(kind), k, errKey)
	}
	return r, decode(string(kind), k, v, &r)
}

// decodeBatch decodes a batch of a queue, to be sent. The error is a *damagedError.
func decodeBatch(kind Kind, k, v []byte) (batch Batch, tried bool, err error) {
	r, err := decodeRecord(kind, k, v)
	if err != nil {
		return Batch{}, false, err
	}
	batch = Batch{Seq: bigEndianSeq(k), Kind: kind}
	batch.Key, batch.CreatedAt, batch.Rows, batch.Path, batch.Body = r.Key, r.CreatedAt, r.Rows, r.Path, r.JSON
	if r.Usage != nil {
		body, err := usageBody(r.Usage)
		if err != nil {
			return batch, false, damagedValue(string(kind), k, err)
		}
		batch.Body = body
	}
	switch {
	case !json.Valid(batch.Body):
		err = damagedValue(string(kind), k, errNoBody)
	case batch.Key == "":
		err = damagedValue(string(kind), k, errNoKey)
	case kind == KindReports && batch.Path == "":
		err = damagedValue(string(kind), k, errNoRoute)
	}
	return batch, r.Tried, err
}

// Done deletes a batch that Core has acknowledged. It returns ErrNoBatch where the queue does
// not have it, as Split and SetAside do.
func (s *Store) Done(batch Batch) error {
	return s.update(func(tx *bbolt.Tx) error {
		if _, err := getRecord(tx, batch); err != nil {
			return err
		}
		return tx.Bucket([]byte(batch.Kind)).Delete(bigEndian64(batch.Seq))
	})
}

// ErrNoBatch means that a batch is not where it was looked for.
var ErrNoBatch = errors.New("no such batch")

// Waiting is how full the outbox is.
type Waiting struct {
	Batches map[Kind]int `json:"batches"` // in the queues
	Aside   int          `json:"aside"`   // batches that are set aside
	// Damaged is how many damaged values are kept, and DamagedEver how many were ever found.
	Damaged     int    `json:"damaged"`
	DamagedEver uint64 `json:"damagedEver"`
	// UsedBytes is how much of the state file is in use. From LimitBytes on, Compact merges
	// and drops more: see there.
	UsedBytes  int64 `json:"usedBytes"`
	LimitBytes int64 `json:"limitBytes"`
	// Oldest is when the oldest batch in a queue was made, UTC; zero where there is none.
	Oldest time.Time `json:"oldest,omitzero"`
}

// Waiting counts the outbox.
func (s *Store) Waiting() (Waiting, error) {
	used, err := s.used()
	if err != nil {
		return Waiting{}, err
	}
	w := Waiting{Batches: map[Kind]int{}, UsedBytes: used, LimitBytes: s.maxUsed}
	err = s.view(func(tx *bbolt.Tx) error {
		w.Oldest = time.Time{}
		for _, kind := range Kinds {
			bucket := tx.Bucket([]byte(kind))
			w.Batches[kind] = bucket.Inspect().KeyN
			k, v := bucket.Cursor().First()
			if k == nil {
				continue
			}
			r, err := decodeRecord(kind, k, v)
			if err != nil {
				return err
			}
			if w.Oldest.IsZero() || r.CreatedAt.Before(w.Oldest) {
				w.Oldest = r.CreatedAt
			}
		}
		w.Aside = tx.Bucket([]byte(bucketAside)).Inspect().KeyN
		damaged := tx.Bucket([]byte(bucketDamaged))
		w.Damaged, w.DamagedEver = damaged.Inspect().KeyN, damaged.Sequence()
		return nil
	})
	return w, err
}

// Split replaces a batch that is too large for Core by two with half the rows each. Core took
// no row of it, so that the halves can have Idempotency-Keys of their own.
func (s *Store) Split(batch Batch) error {
	halves, err := halve(batch)
	if err != nil {
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		if _, err := getRecord(tx, batch); err != nil {
			return err
		}
		// The second half gets the batch's sequence, the first half the sequence before it.
		// seqStep keeps that free: a batch of a thousand rows is split ten times at most.
		for i, half := range halves {
			half.Key, half.CreatedAt = derivedKey("split", batch.Key, fmt.Sprint(i)), batch.CreatedAt
			if err := putJSON(tx, string(batch.Kind), bigEndian64(batch.Seq-1+uint64(i)), half); err != nil {
				return err
			}
		}
		return nil
	})
}

// halve returns the records of the two halves of a batch, without keys.
func halve(batch Batch) ([2]record, error) {
	var halves [2]record
	middle := batch.Rows / 2
	split := func(body any, cut func(first bool) any) error {
		if err := json.Unmarshal(batch.Body, body); err != nil {
			return fmt.Errorf("split %s batch %d: %w", batch.Kind, batch.Seq, err)
		}
		for i := range halves {
			raw, err := json.Marshal(cut(i == 0))
			if err != nil {
				return fmt.Errorf("split %s batch %d: %w", batch.Kind, batch.Seq, err)
			}
			halves[i] = record{Rows: batch.Rows - middle, JSON: raw}
		}
		halves[0].Rows = middle
		return nil
	}
	switch batch.Kind {
	case KindUsage:
		var body wire.UsageRequest
		return halves, split(&body, func(first bool) any {
			return wire.UsageRequest{Entries: half(body.Entries, middle, first)}
		})
	case KindOutbound:
		var body wire.OutboundUsageRequest
		return halves, split(&body, func(first bool) any {
			return wire.OutboundUsageRequest{Items: half(body.Items, middle, first)}
		})
	case KindEvents:
		var body wire.SessionEventsRequest
		return halves, split(&body, func(first bool) any {
			return wire.SessionEventsRequest{Events: half(body.Events, middle, first)}
		})
	case KindReports:
	}
	return halves, fmt.Errorf("split %s batch %d: it has no rows to split", batch.Kind, batch.Seq)
}

// half returns the rows before middle, or those from it on.
func half[T any](rows []T, middle int, first bool) []T {
	if first {
		return rows[:middle]
	}
	return rows[middle:]
}
