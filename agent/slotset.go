package agent

import "slices"

// slotSet is a set of counter slots. Slots are dense, so that a bit for each is less than a map
// has, and a copy costs little.
type slotSet []uint64

func (s slotSet) has(slot uint32) bool {
	return int(slot/64) < len(s) && s[slot/64]&(1<<(slot%64)) != 0
}

// add adds a slot. It changes the set in place.
func (s *slotSet) add(slot uint32) {
	for int(slot/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[slot/64] |= 1 << (slot % 64)
}

// remove removes a slot. It changes the set in place.
func (s slotSet) remove(slot uint32) {
	if s.has(slot) {
		s[slot/64] &^= 1 << (slot % 64)
	}
}

// union returns a new set with the slots of both.
func union(a, b slotSet) slotSet {
	if len(a) < len(b) {
		a, b = b, a
	}
	both := slices.Clone(a)
	for i, bits := range b {
		both[i] |= bits
	}
	return both
}
