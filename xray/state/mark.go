package state

import (
	"encoding/binary"
	"runtime"
	"slices"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"
)

// Sum stands for the clients of an inbound: equal clients have equal sums, in whatever order they
// come. Daemon and worker compare sums instead of a hundred thousand clients. A sum finds changes,
// and is no defence against somebody who chooses clients so that two sums are equal: only Core
// chooses them.
type Sum struct {
	Count int    `json:"count"`
	Hash  uint64 `json:"hash"`
}

// Add adds a client, by its mark, to the sum.
func (s *Sum) Add(c *Client, mark uint64) {
	var numbers [5 * 8]byte
	for i, n := range [5]uint64{mark, uint64(c.Limits.IPs), uint64(c.Limits.Connections), uint64(c.Limits.RateUpBitsPerSecond), uint64(c.Limits.RateDownBitsPerSecond)} {
		binary.LittleEndian.PutUint64(numbers[i*8:], n)
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(c.Email)
	_, _ = d.WriteString("\x00" + c.Group + "\x00")
	_, _ = d.Write(numbers[:])
	if g := c.Grant; g != nil { // other clients have the sum that workers of earlier versions give them
		_, _ = d.WriteString("\x00" + g.ID + "\x00")
		for i, n := range [4]uint64{uint64(g.Bytes), uint64(g.ExpiresAt.UnixNano()), uint64(g.Slot), uint64(g.Until)} {
			binary.LittleEndian.PutUint64(numbers[i*8:], n)
		}
		_, _ = d.Write(numbers[:4*8])
	}
	s.Count++
	s.Hash += d.Sum64()
}

// With returns the sum with the clients of another one, or without them: they come, or they are among those
// that it has.
func (s Sum) With(other Sum, come bool) Sum {
	if come {
		return Sum{s.Count + other.Count, s.Hash + other.Hash}
	}
	return Sum{s.Count - other.Count, s.Hash - other.Hash}
}

// Mark changes with the client's account and slot: two clients with one Email and one mark are
// SameAccount.
func (c *Client) Mark() uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(uint64(c.Slot))
	_, _ = d.Write(c.Account)
	return d.Sum64()
}

// summedTogether are how many clients are summed at once: more are summed on all processors.
const summedTogether = 10_000

// Sum returns the sum of the clients.
func (c Clients) Sum() Sum {
	sums := make([]Sum, (len(c)+summedTogether-1)/summedTogether)
	var summing errgroup.Group
	summing.SetLimit(runtime.GOMAXPROCS(0))
	for n, some := range slices.Collect(slices.Chunk(c, summedTogether)) {
		summing.Go(func() error {
			for _, client := range some {
				sums[n].Add(client, client.Mark())
			}
			return nil
		})
	}
	_ = summing.Wait() // nil: the functions above give none
	var all Sum
	for _, sum := range sums {
		all = all.With(sum, true)
	}
	return all
}
