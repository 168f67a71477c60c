package agent

import (
	"testing"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire/delta"
)

// A table is a map, also beyond the changes that it keeps beside its list.
func TestHashTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[elementID]delta.Digest{}
		var entries []hashEntry
		for id := range elementID(50) {
			want[id] = delta.Digest{byte(id)}
			entries = append(entries, hashEntry{49 - id, delta.Digest{byte(49 - id)}})
		}
		table, twice := newHashTable(entries)
		if twice {
			t.Fatal("an id is there twice")
		}
		steps := rapid.IntRange(0, 200).Draw(t, "steps")
		if rapid.Bool().Draw(t, "many") {
			for id := range elementID(mergeAfter - 100) {
				want[1000+id] = delta.Digest{1}
				table.set(1000+id, delta.Digest{1})
			}
		}
		for range steps {
			id := elementID(rapid.IntRange(0, 80).Draw(t, "id"))
			if rapid.Bool().Draw(t, "remove") {
				table.remove(id)
				delete(want, id)
			} else {
				hash := delta.Digest{rapid.Byte().Draw(t, "hash")}
				table.set(id, hash)
				want[id] = hash
			}
		}
		if table.length != len(want) {
			t.Fatalf("%d entries, want %d", table.length, len(want))
		}
		for id := range elementID(1100) {
			hash, is := table.find(id)
			if before, was := want[id]; is != was || is && hash != before {
				t.Fatalf("entry %d is %v %v, want %v %v", id, hash, is, before, was)
			}
		}
	})
	if _, twice := newHashTable([]hashEntry{{id: 1}, {id: 2}, {id: 1}}); !twice {
		t.Error("an id that is there twice is not told")
	}
}
