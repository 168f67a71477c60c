package store

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"go.etcd.io/bbolt"
)

var (
	keyConfig   = []byte("config")
	keyPrevious = []byte("previous")
	keyPending  = []byte("pending")
	keyAdmitted = []byte("admitted")
	// keyNarrow is there while one of these values may have been lost.
	keyNarrow = []byte("narrow")
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

// Unpack returns the NodeConfig as it was packed. It returns an error for bytes that are not
// compressed.
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
	// Changes are what Core has changed in Current since, in their order: Current with them runs.
	// A transition is made of a history without them, whose Current has them in its Body.
	Changes []Change
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
	// Admitted has what identifies each client that was let in when the history was stored
	// last, 8 bytes each, in the form of package agent; nil where that is not known.
	Admitted []byte
	// Narrow tells that Current or Pending was damaged in the store. Current is then the newest
	// configuration that can be read, and may let in clients that were removed since: only
	// those in Admitted may be let in. Applied ends it.
	Narrow bool
}

// Applied makes next the current configuration. proved tells whether the one until now has
// proved good. If it has, it becomes the previous one; if not, it is forgotten, and the
// previous one stays. The previous one also stays where next has the same revision as the
// current one. Where next has the revision of the previous one, there is none afterwards.
func (h History) Applied(next Config, proved bool) History {
	after := History{Current: &next, Previous: h.Previous, Admitted: h.Admitted}
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
	return History{Current: &current, Changes: h.Changes, GivenUp: h.GivenUp, Unconfirmed: true, Admitted: h.Admitted, Narrow: h.Narrow}
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
	err = s.view(func(tx *bbolt.Tx) error {
		h, err = readHistory(tx)
		return err
	})
	return h, err
}

func readHistory(tx *bbolt.Tx) (History, error) {
	meta := tx.Bucket([]byte(bucketMeta))
	var current currentRecord
	var previous, pending Config
	var bad damages
	has := map[string]bool{}
	for _, part := range []struct {
		key  []byte
		into any
		body *Packed
	}{
		{keyConfig, &current, &current.Body},
		{keyPrevious, &previous, &previous.Body},
		{keyPending, &pending, &pending.Body},
	} {
		if raw := meta.Get(part.key); raw != nil {
			has[string(part.key)] = true
			if err := bad.pass(decodeConfig(part.key, raw, part.into, part.body)); err != nil {
				return History{}, err
			}
		}
	}
	admitted, narrow, err := readAdmitted(meta)
	changes, changesErr := readChanges(tx)
	if err := cmp.Or(bad.pass(err), bad.pass(changesErr), bad.err()); err != nil {
		return History{}, err
	}
	h := History{Admitted: admitted, Narrow: narrow}
	if has[string(keyConfig)] {
		h.Current, h.GivenUp, h.Unconfirmed = &current.Config, current.GivenUp, current.Unconfirmed
	}
	if has[string(keyPrevious)] {
		h.Previous = &previous
	}
	if has[string(keyPending)] {
		h.Pending = &pending
	}
	base := h.Current
	if h.Current == nil && h.Previous != nil { // it was damaged: a history without damage has it
		h.Current, h.Previous, h.Narrow = h.Previous, nil, true
	}
	h.addChanges(base, changes)
	return h, nil
}

// decodeConfig decodes a configuration, whose body is a part of into. One that an earlier version stored
// has no checksum, but its body has.
func decodeConfig(key, raw []byte, into any, body *Packed) error {
	sealed, err := checkSum(bucketMeta, key, raw)
	if err == nil {
		err = unmarshalConfig(raw, into, body)
	}
	if err == nil && !sealed {
		_, err = body.Unpack()
	}
	if err != nil {
		return damagedValue(bucketMeta, key, err)
	}
	return nil
}

// unmarshalConfig is json.Unmarshal for a value whose member body has megabytes: it cuts that text out, which
// encoding/json would read byte by byte, four times.
func unmarshalConfig(raw []byte, into any, body *Packed) error {
	const member = `"body":"`
	// Within a string, the quotation marks of the member would have a backslash before them.
	before, text, found := bytes.Cut(raw, []byte(member))
	end := bytes.IndexByte(text, '"')
	if !found || end <= 0 {
		return json.Unmarshal(raw, into)
	}
	packed, err := base64.StdEncoding.AppendDecode(nil, text[:end])
	if err != nil {
		return json.Unmarshal(raw, into)
	}
	if err := json.Unmarshal(slices.Concat(before, []byte(member), text[end:]), into); err != nil {
		return err
	}
	*body = packed
	return nil
}

// readAdmitted returns who was let in, and whether a configuration may have been lost.
func readAdmitted(meta *bbolt.Bucket) (admitted []byte, narrow bool, err error) {
	narrow = meta.Get(keyNarrow) != nil
	raw := meta.Get(keyAdmitted)
	if raw == nil {
		return nil, narrow, nil
	}
	value, ok := unframed(bucketMeta, keyAdmitted, raw)
	if !ok {
		return nil, narrow, damagedValue(bucketMeta, keyAdmitted, errSum)
	}
	return slices.Clone(value), narrow, nil
}

// writeHistory stores a history. Its changes are those that are stored already, or none.
func writeHistory(tx *bbolt.Tx, h History) error {
	if len(h.Changes) == 0 {
		if err := dropChanges(tx); err != nil {
			return err
		}
	}
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
	var admitted, narrow []byte
	if h.Admitted != nil {
		admitted = framed(bucketMeta, keyAdmitted, h.Admitted)
	}
	if h.Narrow {
		narrow = []byte{1}
	}
	return errors.Join(replaceJSON(tx, keyConfig, current), replaceJSON(tx, keyPrevious, previous), replaceJSON(tx, keyPending, pending),
		replace(tx, keyAdmitted, admitted), replace(tx, keyNarrow, narrow))
}

// replaceJSON stores v in the bucket meta, or deletes the key where v is nil.
func replaceJSON(tx *bbolt.Tx, key []byte, v any) error {
	if v == nil {
		return replace(tx, key, nil)
	}
	raw, err := encode(bucketMeta, key, v)
	if err != nil {
		return err
	}
	return replace(tx, key, raw)
}

// replace stores a value in the bucket meta, or deletes the key where it is nil. What is stored
// already is not written again: a configuration can have megabytes.
func replace(tx *bbolt.Tx, key, raw []byte) error {
	meta := tx.Bucket([]byte(bucketMeta))
	if raw == nil {
		return meta.Delete(key)
	}
	if bytes.Equal(meta.Get(key), raw) {
		return nil
	}
	return meta.Put(key, raw)
}
