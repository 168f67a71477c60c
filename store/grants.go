package store

import (
	"cmp"
	"slices"
	"time"
)

// maxGrants is how many grants are remembered that no configuration names and that have not
// expired. Beyond it, those that expire first are forgotten.
const maxGrants = 1 << 16

// GrantStarts returns, for each slot of a grant, the value that its Up had at the first byte under
// the grant. It is negative where the counters began again at zero
// since then. It stays the same while the grant has the slot and the counters have their epoch.
func (s *Store) GrantStarts(counters Counters, slots []uint32) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	starts := make([]int64, len(slots))
	c := collection{ledger: &s.ledger}
	epoch := counters.Epoch()
	same := s.ledger.epochs[0] == epoch || s.ledger.epochs[1] == epoch
	for i, slot := range slots {
		a := c.account(slot)
		if a == nil {
			continue
		}
		starts[i] = -int64(a.pendingUp)
		if same {
			starts[i] += int64(a.rawUp)
		}
	}
	return starts
}

// OldGrants returns the slots of grants that may be forgotten: those that are not in use and have
// expired, and those beyond the most that are remembered.
func (s *Store) OldGrants(now time.Time, inUse func(slot uint32) bool) (old []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var valid []uint32
	for slot := range s.ledger.all() {
		switch {
		case !s.ledger.grant(slot) || inUse(slot):
		case s.ledger.list[slot].expires < now.Unix():
			old = append(old, slot)
		default:
			valid = append(valid, slot)
		}
	}
	if more := len(valid) - maxGrants; more > 0 {
		slices.SortFunc(valid, func(a, b uint32) int {
			return cmp.Compare(s.ledger.list[a].expires, s.ledger.list[b].expires)
		})
		old = append(old, valid[:more]...)
	}
	return old
}

// Hasten makes rows of what is accounted for the slots, also of a minute that is not over.
func (s *Store) Hasten(now time.Time, counters Counters, slots []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for _, slot := range slots {
			if s.ledger.owned(slot) {
				c.closeOut(slot)
			}
		}
		return nil
	})
}
