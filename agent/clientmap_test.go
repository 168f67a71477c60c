package agent

import (
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

// A client map is a map through all its layers, and one that others were made from stays as it was.
func TestClientMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := func(label string) string { return strconv.Itoa(rapid.IntRange(0, 400).Draw(t, label)) }
		want := map[string]wire.ClientRef{}
		for i := range rapid.IntRange(0, 300).Draw(t, "at first") {
			want[strconv.Itoa(i)] = wire.ClientRef{UserID: int64(i)}
		}
		m := newClientMap(maps.Clone(want))
		check := func(m clientMap, want map[string]wire.ClientRef) {
			if m.length != len(want) {
				t.Fatalf("it has %d entries, want %d", m.length, len(want))
			}
			keys := slices.Sorted(m.keys())
			if !slices.Equal(keys, slices.Sorted(maps.Keys(want))) {
				t.Fatalf("it has the keys %v, want those of %v", keys, want)
			}
			for i := range 401 {
				ref, is := m.find(strconv.Itoa(i))
				if before, was := want[strconv.Itoa(i)]; is != was || ref != before {
					t.Fatalf("entry %d is %v %v, want %v %v", i, ref, is, before, was)
				}
			}
		}
		for range rapid.IntRange(0, 12).Draw(t, "changes") {
			before, had := m, maps.Clone(want)
			var removed []string
			for range rapid.IntRange(0, 40).Draw(t, "removed") {
				removed = append(removed, key("gone"))
				delete(want, removed[len(removed)-1])
			}
			set := map[string]wire.ClientRef{}
			for range rapid.IntRange(0, 60).Draw(t, "set") {
				set[key("comes")] = wire.ClientRef{UserID: rapid.Int64().Draw(t, "user")}
			}
			maps.Copy(want, set)
			m = m.with(set, removed)
			check(m, want)
			check(before, had)
		}
	})
}
