package state

import (
	"math/bits"
	"sync/atomic"
)

// seen knows which hashes the clients of an inbound have, and may know more: those of clients that are
// gone. Inbounds of which one was made from the other share it.
type seen struct{ uuids, secrets filter }

func seenOf(clients Clients) *seen {
	s := &seen{}
	if len(clients) == 0 {
		return s
	}
	// Clients of one protocol have the same hashes.
	if clients[0].Reading.UUIDHash != 0 {
		s.uuids = newFilter(len(clients))
	}
	if clients[0].Reading.SecretHash != 0 {
		s.secrets = newFilter(len(clients))
	}
	s.add(clients)
	return s
}

func (s *seen) add(clients Clients) {
	if s == nil {
		return
	}
	for _, c := range clients {
		s.uuids.add(c.Reading.UUIDHash)
		s.secrets.add(c.Reading.SecretHash)
	}
}

// secretsApart reports whether it is sure that each client of come that is not in gone under its Email has a
// SecretHash of its own.
func (s *seen) secretsApart(gone, come Clients) bool {
	if s == nil {
		return false
	}
	have := map[uint64]int{}
	for _, c := range come {
		have[c.Reading.SecretHash]++
	}
	for c := range come.NotIn(gone) {
		if hash := c.Reading.SecretHash; have[hash] > 1 || s.secrets.mayHave(hash) {
			return false
		}
	}
	return true
}

// filter is a set of hashes that may say of a hash that it has it though it has not (a Bloom filter with two
// bits for each hash). Any goroutine may use it. The zero value may have every hash.
type filter struct{ words []atomic.Uint64 }

// filterBits is how many bits a filter has for each hash at least. Of the hashes that it has not, one in 64
// passes for one that it has.
const filterBits = 16

func newFilter(n int) filter {
	words := 1 << bits.Len(uint((n*filterBits-1)/64))
	return filter{make([]atomic.Uint64, words)}
}

// bit is a bit of a filter.
type bit struct {
	word *atomic.Uint64
	mask uint64
}

// bits are those that stand for a hash.
func (f *filter) bits(hash uint64) (of [2]bit) {
	for i := range of {
		at := hash >> (32 * i) & uint64(len(f.words)*64-1)
		of[i] = bit{&f.words[at/64], 1 << (at % 64)}
	}
	return of
}

func (f *filter) add(hash uint64) {
	if len(f.words) == 0 {
		return
	}
	for _, b := range f.bits(hash) {
		b.word.Or(b.mask)
	}
}

func (f *filter) mayHave(hash uint64) bool {
	if len(f.words) == 0 {
		return true
	}
	for _, b := range f.bits(hash) {
		if b.word.Load()&b.mask == 0 {
			return false
		}
	}
	return true
}
