package traffic

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/internal/counters"
	"nodeagent/internal/grant"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// drawClients draws an inbound and some of its clients, with no slot yet.
func drawClients(t *rapid.T) (state.Inbound, []state.Client, []*counters.Slot) {
	in := state.Inbound{Tag: rapid.SampledFrom([]string{"in-1", "in-2"}).Draw(t, "inbound"), Protocol: "vless"}
	seen := map[string]bool{}
	var clients []state.Client
	for range rapid.IntRange(0, 4).Draw(t, "clients") {
		c := state.Client{
			Email: fmt.Sprint(in.Tag, rapid.IntRange(0, 6).Draw(t, "client")), Slot: uint32(rapid.IntRange(0, 1).Draw(t, "slot")),
			Account: fmt.Appendf(nil, `{"id":"%d"}`, rapid.IntRange(0, 1).Draw(t, "account")),
		}
		if rapid.Bool().Draw(t, "limited") {
			c.Group, c.Limits.Connections = "g", rapid.IntRange(1, 3).Draw(t, "connections")
		}
		if rapid.Bool().Draw(t, "granted") {
			c.Group, c.Grant = "g", &grant.Grant{ID: "x", Bytes: 5, ExpiresAt: time.Unix(rapid.Int64Range(0, 2).Draw(t, "expires"), 0)}
		}
		if !seen[c.Email] {
			clients = append(clients, c)
		}
		seen[c.Email] = true
	}
	return in, clients, make([]*counters.Slot, len(clients))
}

// Whatever comes, changes and goes: the sums that are kept up are those of the clients that are there.
func TestSumsAreKeptUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRegistry(func(ipc.Message) {})
		r.SlotOf = func(uint32) (*counters.Slot, error) { return &counters.Slot{}, nil }
		nothing := func() {}
		undo := nothing // the last announcement, where nothing has changed since
		t.Repeat(map[string]func(*rapid.T){
			"announce": func(t *rapid.T) {
				undo = r.Announce(drawClients(t)).Undo
			},
			"undo": func(*rapid.T) {
				undo()
				undo = nothing
			},
			"put": func(t *rapid.T) {
				in, clients, slots := drawClients(t)
				r.Put(in.Tag, clients, slots)
				undo = nothing
			},
			"remove": func(t *rapid.T) {
				_, clients, _ := drawClients(t)
				var emails []string
				for _, c := range clients {
					emails = append(emails, c.Email)
				}
				r.Remove(emails)
				undo = nothing
			},
			"remove others": func(t *rapid.T) {
				in, clients, _ := drawClients(t)
				r.RemoveOthers(in.Tag, clients)
				undo = nothing
			},
			"": func(t *rapid.T) {
				want := map[string]state.Sum{}
				for _, u := range r.users {
					u.addTo(want, true)
				}
				var running ipc.Running
				r.Snapshot(&running, func() {})
				if !maps.Equal(running.Clients, want) {
					t.Fatalf("the sums are %v, want %v", running.Clients, want)
				}
			},
		})
	})
}
