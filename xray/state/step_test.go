package state_test

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"nodeagent/xray/state"

	"pgregory.net/rapid"
)

// drawClients draws clients with few emails, accounts and secrets, so that two of them have much in common.
func drawClients(t *rapid.T, label string) state.Clients {
	var clients []state.Client
	for _, email := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 0, 5, rapid.ID).Draw(t, label) {
		c := client(email, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "account"))
		c.Limits.IPs = rapid.IntRange(0, 1).Draw(t, "limit")
		c.Reading.SecretHash = rapid.Uint64Range(1, 6).Draw(t, "secret")
		c.Reading.UUIDHash = rapid.Uint64Range(1, 6).Draw(t, "uuid")
		clients = append(clients, c)
	}
	return state.SortClients(clients)
}

// drawChange draws clients that go and come for an inbound.
func drawChange(t *rapid.T, in state.Inbound) (gone, come state.Clients) {
	for _, c := range in.Clients {
		if rapid.Bool().Draw(t, "goes") {
			gone = append(gone, c)
		}
	}
	return gone, drawClients(t, "come")
}

// Two inbounds of which one was made from the other differ in the same as two whose lists are compared, in
// both directions, also after a list that came this way was changed in place.
func TestApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := inbound("in", "1")
		base.Clients = drawClients(t, "base")
		base = base.Decoded()
		gone, come := drawChange(t, base)
		next, ok := base.Change(gone, come)
		want := maps.Collect(byEmail(base.Clients))
		for _, c := range gone {
			delete(want, c.Email)
		}
		twice := false
		for _, c := range come {
			twice = twice || want[c.Email] != nil
			want[c.Email] = c
		}
		if ok == twice {
			t.Fatalf("ok is %v, and a client that stays has the Email of one that comes: %v", ok, twice)
		}
		if !ok {
			return
		}
		if !maps.Equal(maps.Collect(byEmail(next.Clients)), want) || !slices.IsSortedFunc(next.Clients, compareEmails) {
			t.Fatalf("the clients are %v, want %v", next.Clients, want)
		}
		for _, hash := range []uint64{1, 2, 3, 4, 5, 6} {
			has := slices.ContainsFunc(next.Clients, func(c *state.Client) bool { return c.Reading.UUIDHash == hash })
			if next.HasUUID(slices.Values([]uint64{hash})) != has {
				t.Fatalf("whether a client has the UUID %d: want %v", hash, has)
			}
		}
		if next.SecretsApart(base) {
			for c := range next.Clients.NotIn(base.Clients) {
				for _, other := range next.Clients {
					if other != c && other.Reading.SecretHash == c.Reading.SecretHash {
						t.Fatalf("%s and %s have one secret", c.Email, other.Email)
					}
				}
			}
		}
		if len(next.Clients) > 0 && rapid.Bool().Draw(t, "in place") {
			at := rapid.IntRange(0, len(next.Clients)-1).Draw(t, "at")
			changed := *next.Clients[at]
			changed.Limits.IPs += 5
			next = next.Changed()
			next.Clients[at] = &changed
		}
		other, ok := base.Change(drawChange(t, base))
		if !ok {
			other = base
		}
		pairs := [][2]state.Inbound{{base, next}, {next, base}, {base, base}, {next, other}}
		for _, pair := range pairs {
			from, to := stateOf(pair[0]), stateOf(pair[1])
			plainFrom, plainTo := stateOf(pair[0].Changed()), stateOf(pair[1].Changed())
			if got, want := state.Diff(from, to), state.Diff(plainFrom, plainTo); !reflect.DeepEqual(got, want) {
				t.Fatalf("the difference is %v, want %v", got, want)
			}
			if got, want := state.ClientsGone(from, to), state.ClientsGone(plainFrom, plainTo); !reflect.DeepEqual(got, want) {
				t.Fatalf("gone are %v, want %v", got, want)
			}
		}
	})
}

func byEmail(clients state.Clients) func(func(string, *state.Client) bool) {
	return func(yield func(string, *state.Client) bool) {
		for _, c := range clients {
			if !yield(c.Email, c) {
				return
			}
		}
	}
}

func compareEmails(a, b *state.Client) int {
	switch {
	case a.Email < b.Email:
		return -1
	case a.Email > b.Email:
		return 1
	}
	return 0
}

// A difference of two lists of which one came from the other does not pass over them.
func TestApartIsSmall(t *testing.T) {
	many := make([]state.Client, 1000)
	for i := range many {
		many[i] = client(string(rune('a'+i)), "1")
	}
	base := inbound("in", "1", many...).Decoded()
	next, ok := base.Change(base.Clients[3:4], nil)
	if !ok {
		t.Fatal("a client that is there can't go")
	}
	for _, pair := range [][2]state.Inbound{{base, next}, {next, base}, {base, base}} {
		if gone, come := state.Apart(pair[0], pair[1]); len(gone)+len(come) > 1 {
			t.Errorf("%d and %d clients are compared, want 1", len(gone), len(come))
		}
	}
}
