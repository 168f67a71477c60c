package grant

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"nodeagent/internal/counters"
)

// maxID is the longest id, in bytes. The state file keeps each id until the grant is over.
const maxID = 128

// Grant is what one person may still move. It is read-only, but for Slot and Until, which the
// daemon sets before an engine gets the grant.
type Grant struct {
	ID        string    `json:"id"`
	Bytes     int64     `json:"bytes"` // up and down together, from the first byte under this ID
	ExpiresAt time.Time `json:"expiresAt"`
	// Slot is the index of the slot that counts the grant.
	Slot uint32 `json:"slot,omitzero"`
	// Until is the value of the slot's Up at which the grant is used up. It can be negative: the
	// counters began again at zero since the grant was named first.
	Until int64 `json:"until,omitzero"`
}

// text is a grant as Core writes it.
type text struct {
	ID        *string `json:"id"`
	Bytes     *int64  `json:"bytes"`
	ExpiresAt *string `json:"expiresAt"`
}

// Read reads the member grant of a client; nil for none. Members that it does not know are
// ignored.
func Read(raw json.RawMessage) (*Grant, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil //nolint:nilnil // no grant is no bound
	}
	var t text
	if err := json.Unmarshal(raw, &t); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, fmt.Errorf(`its grant has a JSON %s in %q: want {"id": text, "bytes": whole number, "expiresAt": time}`, wrong.Value, wrong.Field)
		}
		return nil, fmt.Errorf("read its grant: %w", err)
	}
	switch {
	case t.ID == nil || *t.ID == "":
		return nil, errors.New("its grant has no id: give each grant an id of its own")
	case len(*t.ID) > maxID || strings.ContainsFunc(*t.ID, unicode.IsControl):
		return nil, fmt.Errorf("its grant has an id of %d bytes: want printable text of at most %d bytes", len(*t.ID), maxID)
	case t.Bytes == nil:
		return nil, fmt.Errorf("its grant %q has no bytes: say how many it may move, or leave the grant out for no bound", *t.ID)
	case *t.Bytes < 0:
		return nil, fmt.Errorf("its grant %q has %d bytes: want 0 or more", *t.ID, *t.Bytes)
	case t.ExpiresAt == nil:
		return nil, fmt.Errorf("its grant %q has no expiresAt: say until when it holds, as 2026-01-31T12:00:00Z", *t.ID)
	}
	expires, err := time.Parse(time.RFC3339, *t.ExpiresAt)
	if err != nil {
		return nil, fmt.Errorf("its grant %q has the expiresAt %.40q: want a time of RFC 3339, as 2026-01-31T12:00:00Z", *t.ID, *t.ExpiresAt)
	}
	return &Grant{ID: *t.ID, Bytes: *t.Bytes, ExpiresAt: expires.UTC()}, nil
}

// Equal reports whether the two grants bound the same. Either may be nil.
func (g *Grant) Equal(o *Grant) bool {
	if g == nil || o == nil {
		return g == o
	}
	return g.Same(o) && g.Slot == o.Slot && g.Until == o.Until
}

// Same reports whether Core wrote the same for both. Neither may be nil.
func (g *Grant) Same(o *Grant) bool {
	return g.ID == o.ID && g.Bytes == o.Bytes && g.ExpiresAt.Equal(o.ExpiresAt)
}

// End returns Until for a slot in which the grant began to count at the value start.
func (g *Grant) End(start int64) int64 {
	if start > 0 && g.Bytes > math.MaxInt64-start {
		return math.MaxInt64
	}
	return start + g.Bytes
}

// Over reports whether the grant is used up, where its slot counts used bytes, or expired.
func (g *Grant) Over(used uint64, now time.Time) bool {
	return int64(used) >= g.Until || !now.Before(g.ExpiresAt)
}

// Spend adds n bytes to the slot and reports true, where the grant is not used up; otherwise it
// leaves the slot as it is. The last bytes of a grant pass together with those that come with them:
// at most n bytes more than were granted pass, over all goroutines and processes that count into the
// slot, because only one of them reaches the end. The slot never falls: the store takes a slot that
// falls for one that began again at zero.
func (g *Grant) Spend(slot *counters.Slot, n int) bool {
	for {
		before := slot.Up.Load()
		if int64(before) >= g.Until {
			return false
		}
		if slot.Up.CompareAndSwap(before, before+uint64(n)) {
			return true
		}
	}
}

// Left returns how many bytes are left; 0 for none.
func (g *Grant) Left(slot *counters.Slot) int64 {
	return max(0, g.Until-int64(slot.Up.Load()))
}
