package store

import (
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// granted is a grant in the model of TestGrantsAreCountedOnce.
type granted struct {
	owner Owner
	slot  uint32
	used  uint64 // since the node saw it first
	saved uint64 // of it, at the last read of the counters
}

// Whatever happens between, the counter of a grant less its start is what was moved since its id was
// seen first: over reads, minutes, steps of the clock, restarts of the daemon, other owners of the slots
// around it, and reboots, which may lose what came after the last read and nothing else. No row has these bytes.
func TestGrantsAreCountedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(memory(), "grants-*")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		fail := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir)
		fail(err)
		defer func() { _ = s.Close() }()
		c, now, grants := &counts{epoch: "0", values: map[uint32]traffic{}}, noon, map[int]*granted{}
		reopen := func() {
			fail(s.Close())
			s, err = Open(dir)
			fail(err)
		}
		save := func() {
			for _, g := range grants {
				g.saved = g.used
			}
		}
		name := func(n int) Owner {
			return Owner{Engine: EngineGrant, Tag: fmt.Sprint("id-", n/2), Key: fmt.Sprint("person-", n%2), Expires: now.Add(time.Hour).Unix()}
		}
		clients := []Owner{owner("a", 1), owner("b", 2)}
		var slots []uint32
		t.Repeat(map[string]func(*rapid.T){
			"name a grant": func(t *rapid.T) {
				n := rapid.IntRange(0, 5).Draw(t, "grant")
				slot, err := s.Assign([]Owner{name(n)})
				fail(err)
				if g := grants[n]; g == nil {
					grants[n] = &granted{owner: name(n), slot: slot[0]}
				} else if g.slot != slot[0] {
					t.Fatalf("grant %d has slot %d, and had slot %d", n, slot[0], g.slot)
				}
			},
			"move": func(t *rapid.T) {
				for n, g := range grants {
					moved := rapid.Uint64Range(0, 1<<20).Draw(t, fmt.Sprint("bytes of ", n))
					g.used += moved
					c.add(g.slot, moved, 0)
				}
				for _, slot := range slots {
					c.add(slot, 7, 9)
				}
			},
			"read": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
				fail(s.Collect(now, c))
				save()
			},
			"set the clock": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-48, 48).Draw(t, "hours")) * time.Hour)
			},
			"flush": func(*rapid.T) { fail(s.Flush(now, c)); save() },
			"hasten": func(*rapid.T) {
				var all []uint32
				for _, g := range grants {
					all = append(all, g.slot)
				}
				fail(s.Hasten(now, c, append(all, slots...)))
				save()
			},
			"clients come": func(*rapid.T) {
				var err error
				slots, err = s.Assign(clients)
				fail(err)
			},
			"clients go": func(*rapid.T) { fail(s.Release(now, c, slots)); save(); slots = nil },
			"restart":    func(*rapid.T) { reopen() },
			"reboot": func(*rapid.T) {
				reopen()
				c = &counts{epoch: c.epoch + "0", values: map[uint32]traffic{}}
				for _, g := range grants {
					g.used = g.saved
				}
			},
			"forget": func(*rapid.T) {
				old := s.OldGrants(now, func(uint32) bool { return false })
				fail(s.Release(now, c, old))
				save()
				for n, g := range grants {
					if g.owner.Expires < now.Unix() {
						delete(grants, n)
					}
				}
			},
			"": func(t *rapid.T) {
				for n, g := range grants {
					used, _ := c.Read(g.slot)
					if have := int64(used) - s.GrantStarts(c, []uint32{g.slot})[0]; have != int64(g.used) {
						t.Fatalf("grant %d: %d bytes are counted, %d were moved", n, have, g.used)
					}
				}
			},
		})
		fail(s.Flush(now, c))
		for {
			batch, found, err := s.Next(KindUsage)
			fail(err)
			if !found {
				return
			}
			for _, row := range entries(t, batch) {
				if row.UserID != 1 && row.UserID != 2 {
					t.Fatalf("a row that no client made: %+v", row)
				}
			}
			fail(s.Done(batch))
		}
	})
}

// memory is a folder of a file system in memory, where writes are quick, or "" for the default.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// A grant that nobody names is remembered until it has expired, and the number of them is bounded.
func TestOldGrants(t *testing.T) {
	s := open(t, t.TempDir())
	var owners []Owner
	for i := range maxGrants + 10 {
		owners = append(owners, Owner{Engine: EngineGrant, Tag: fmt.Sprint(i), Key: "a", Expires: noon.Unix() + int64(i)})
	}
	slots := assign(t, s, owners...)
	if old := s.OldGrants(noon, func(uint32) bool { return false }); len(old) != 10 {
		t.Errorf("%d grants are old, want the 10 that are too many", len(old))
	}
	inUse := map[uint32]bool{slots[0]: true}
	if old := s.OldGrants(noon.Add(20*time.Second), func(slot uint32) bool { return inUse[slot] }); len(old) != 19 {
		t.Errorf("%d grants are old, want the 19 that have expired and are not in use", len(old))
	}
}
