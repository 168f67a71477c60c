package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

// core counts the rows of batches, each key once.
type core struct {
	seen map[string]bool
	up   map[int64]int64 // by user
}

// deliver sends all batches of a store, also those that another store has sent.
func (c *core) deliver(t testing.TB, s *Store) {
	t.Helper()
	for {
		batch, found, err := s.Next(KindUsage)
		if err != nil {
			t.Fatal(err)
		}
		if !found {
			return
		}
		if !c.seen[batch.Key] {
			c.seen[batch.Key] = true
			var body wire.UsageRequest
			if err := json.Unmarshal(batch.Body, &body); err != nil {
				t.Fatal(err)
			}
			for _, e := range body.Entries {
				c.up[e.UserID] += e.BytesUp
			}
		}
		if err := s.Done(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// copyOf opens a copy of a state folder, as a clone of a running machine's disk has it.
func copyOf(t testing.TB, dir string) *Store {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "node.db"))
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, "node.db"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, to)
}

// A disk is cloned while bytes wait and while a minute is open. Both daemons go on, each with
// counters of its own. Core never counts a byte twice, and every byte that is counted after
// the open minute is counted once.
func TestClonesAreCountedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		original := open(t, dir)
		counters := &counts{epoch: "original", values: map[uint32]traffic{}}
		slot := assign(t, original, owner("a", 1))[0]
		now, sent := noon, uint64(0)
		collect := func(s *Store, c *counts) {
			if err := s.Collect(now, c); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 8).Draw(rt, "reads before the copy") {
			bytes := uint64(rapid.IntRange(0, 1000).Draw(rt, "bytes"))
			counters.add(slot, bytes, 0)
			sent += bytes
			collect(original, counters)
			now = now.Add(time.Duration(rapid.IntRange(1, 50).Draw(rt, "seconds")) * time.Second)
		}
		core := &core{seen: map[string]bool{}, up: map[int64]int64{}}
		if rapid.Bool().Draw(rt, "some were delivered before") {
			core.deliver(t, original)
		}
		if rapid.Bool().Draw(rt, "old batches are merged") {
			if _, err := original.Compact(now.AddDate(0, 0, 10)); err != nil {
				rt.Fatal(err)
			}
		}
		clone := copyOf(t, dir)
		own := &counts{epoch: "clone", values: map[uint32]traffic{}}
		if err := clone.Flush(now, own); err != nil { // the clone's daemon starts
			rt.Fatal(err)
		}
		open := original.ledger.minute
		missable := uint64(0) // bytes of the minute that was open when the disk was copied
		for range rapid.IntRange(0, 8).Draw(rt, "reads after the copy") {
			now = now.Add(time.Duration(rapid.IntRange(1, 50).Draw(rt, "seconds")) * time.Second)
			bytes := uint64(rapid.IntRange(0, 1000).Draw(rt, "bytes"))
			counters.add(slot, bytes, 0)
			own.add(slot, bytes, 0)
			sent += 2 * bytes
			if original.ledger.minute.Equal(open) {
				missable += bytes
			}
			for _, d := range []struct {
				s *Store
				c *counts
			}{{original, counters}, {clone, own}} {
				collect(d.s, d.c)
				if rapid.Bool().Draw(rt, "delivered") {
					core.deliver(t, d.s)
				}
			}
		}
		for _, d := range []struct {
			s *Store
			c *counts
		}{{clone, own}, {original, counters}} {
			if err := d.s.Flush(now, d.c); err != nil {
				rt.Fatal(err)
			}
			core.deliver(t, d.s)
		}
		have := uint64(core.up[1])
		if have > sent {
			rt.Fatalf("Core has counted %d bytes, and %d were sent", have, sent)
		}
		if have+missable < sent {
			rt.Fatalf("Core has counted %d bytes of %d, and only the %d of the minute of the copy can be missing", have, sent, missable)
		}
		if err := clone.Close(); err != nil {
			rt.Fatal(err)
		}
		if err := original.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}
