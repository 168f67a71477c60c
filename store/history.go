package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	jsonv1 "github.com/go-json-experiment/json/v1"
	"go.etcd.io/bbolt"
)

var (
	keyConfig   = []byte("config")
	keyPrevious = []byte("previous")
	keyPending  = []byte("pending")
)

// Config is a configuration that Core sent and that ran.
type Config struct {
	Revision int64  `json:"revision"`
	ETag     string `json:"etag,omitempty"` // as Core sent it; empty for none
	Body     Packed `json:"body"`
}

// Packed is a NodeConfig, JSON, compressed with zstd.
type Packed []byte

// Pack compresses a NodeConfig.
func Pack(body []byte) (Packed, error) { return compress(body) }

// Unpack returns the NodeConfig as it was packed. It returns ErrCorrupt for bytes that are
// not compressed.
func (p Packed) Unpack() ([]byte, error) { return decompress(p) }

// History says which configurations the node has run. It is a value: a transition returns the
// next History, and does not change the one that it is called on.
//
//	Applied         Core sent a configuration, and it runs
//	WithPending     Core sent a configuration, and it runs in part or not at all
//	RolledBack      Current made the worker crash, and Previous runs again
//	RegisteredAnew  the node registered again with the same Core
type History struct {
	// Current is the configuration that runs, and that the next start serves; nil before the
	// first one.
	Current *Config
	// Previous is the one that runs again where Current turns out to be bad; nil for none.
	Previous *Config
	// GivenUp is the configuration that a rollback replaced by Current; nil for none. Clients
	// that GivenUp does not let in stay out.
	GivenUp Packed
	// Pending is the document that Core wants and that runs in part, or not at all; nil where
	// Current is the newest. Clients that it does not let in stay out.
	Pending *Config
	// Unconfirmed tells that the node registered anew since Current came: Core may have
	// another configuration under the same revision.
	Unconfirmed bool
}

// Applied makes next the current configuration. proved tells whether the one until now has
// proved good. If it has, it becomes the previous one; if not, it is forgotten, and the
// previous one stays. The previous one also stays where next has the same revision as the
// current one. Where next has the revision of the previous one, there is none afterwards.
func (h History) Applied(next Config, proved bool) History {
	after := History{Current: &next, Previous: h.Previous}
	switch {
	case !proved, h.Current != nil && h.Current.Revision == next.Revision:
	case h.Current != nil && (h.Previous == nil || h.Previous.Revision != next.Revision):
		after.Previous = h.Current
	default:
		after.Previous = nil
	}
	return after
}

// WithPending notes the document that Core wants and that does not run as a whole. The current
// configuration stays the last one that does.
func (h History) WithPending(next Config) History {
	h.Pending = &next
	return h
}

// PendingBody returns the document of Pending, nil for none.
func (h History) PendingBody() Packed {
	if h.Pending == nil {
		return nil
	}
	return h.Pending.Body
}

// RolledBack makes the previous configuration the current one, and gives the current one
// up. The history must have both.
func (h History) RolledBack() History {
	after := h.Applied(*h.Previous, true)
	after.GivenUp = h.Current.Body
	return after
}

// RegisteredAnew keeps the current configuration, to be served until Core sends one.
func (h History) RegisteredAnew() History {
	if h.Current == nil {
		return History{}
	}
	current := *h.Current
	current.ETag = ""
	return History{Current: &current, GivenUp: h.GivenUp, Unconfirmed: true}
}

// currentRecord is how the current configuration is stored. A version before this one may
// have stored these members with the previous one too; it never read them there.
type currentRecord struct {
	Config
	GivenUp     Packed `json:"newer,omitempty"`
	Unconfirmed bool   `json:"unconfirmed,omitempty"`
}

// History returns which configurations the node has run.
func (s *Store) History() (h History, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		h, err = readHistory(tx.Bucket(bucketMeta))
		return err
	})
	return h, err
}

func readHistory(meta *bbolt.Bucket) (History, error) {
	var h History
	if raw := meta.Get(keyConfig); raw != nil {
		var r currentRecord
		if err := json.Unmarshal(raw, &r); err != nil {
			return h, fmt.Errorf("%w: %s: %w", ErrCorrupt, keyConfig, err)
		}
		h = History{Current: &r.Config, GivenUp: r.GivenUp, Unconfirmed: r.Unconfirmed}
	}
	if raw := meta.Get(keyPrevious); raw != nil {
		h.Previous = new(Config)
		if err := json.Unmarshal(raw, h.Previous); err != nil {
			return h, fmt.Errorf("%w: %s: %w", ErrCorrupt, keyPrevious, err)
		}
	}
	if raw := meta.Get(keyPending); raw != nil {
		h.Pending = new(Config)
		if err := json.Unmarshal(raw, h.Pending); err != nil {
			return h, fmt.Errorf("%w: %s: %w", ErrCorrupt, keyPending, err)
		}
	}
	return h, nil
}

func writeHistory(meta *bbolt.Bucket, h History) error {
	var current, previous, pending any
	if h.Current != nil {
		current = currentRecord{Config: *h.Current, GivenUp: h.GivenUp, Unconfirmed: h.Unconfirmed}
	}
	if h.Previous != nil {
		previous = h.Previous
	}
	if h.Pending != nil {
		pending = h.Pending
	}
	return errors.Join(replaceJSON(meta, keyConfig, current), replaceJSON(meta, keyPrevious, previous), replaceJSON(meta, keyPending, pending))
}

// replaceJSON stores v, or deletes the key where v is nil. What is stored already is not
// written again: a configuration can have megabytes.
func replaceJSON(b *bbolt.Bucket, key []byte, v any) error {
	if v == nil {
		return b.Delete(key)
	}
	raw, err := jsonv1.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if bytes.Equal(b.Get(key), raw) {
		return nil
	}
	return b.Put(key, raw)
}
