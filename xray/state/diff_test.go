package state_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"

	"pgregory.net/rapid"
)

func client(email string, account string) state.Client {
	return state.Client{Key: email, Tied: true, Email: email, Account: json.RawMessage(account), Slot: uint32(len(email))}
}

func inbound(tag, config string, clients ...state.Client) state.Inbound {
	return state.Inbound{Tag: tag, Protocol: "vless", Config: json.RawMessage(config), Clients: state.SortClients(clients)}
}

func stateOf(parts ...any) state.State {
	s := state.State{Inbounds: map[string]state.Inbound{}}
	for _, part := range parts {
		switch p := part.(type) {
		case state.Inbound:
			s.Inbounds[p.Tag] = p
		case state.Outbound:
			s.Outbounds = append(s.Outbounds, p)
		case string:
			s.Routing = json.RawMessage(p)
		}
	}
	return s
}

func outbound(tag, config string) state.Outbound {
	return state.Outbound{Tag: tag, Config: json.RawMessage(config)}
}

func TestDiff(t *testing.T) {
	a, b := client("a", `{"id":1}`), client("b", `{"id":2}`)
	changed := client("a", `{"id":3}`)
	limited := a
	limited.Limits.IPs = 2
	for _, c := range []struct {
		name     string
		from, to state.State
		want     string
	}{
		{"nothing", stateOf(), stateOf(), ""},
		{"the same", stateOf(inbound("in", "1", a)), stateOf(inbound("in", "1", a)), ""},
		{
			"start", stateOf(), stateOf(outbound("direct", "1"), inbound("in", "1", a, b), "{}"),
			"put_outbound direct; default_outbound direct; set_routing; add_inbound in; add_users in +a +b",
		},
		{
			"stop", stateOf(outbound("direct", "1"), inbound("in", "1", a), "{}"), stateOf(),
			"set_routing; remove_inbound in; remove_outbound direct",
		},
		{"one user comes", stateOf(inbound("in", "1", a)), stateOf(inbound("in", "1", a, b)), "add_users in +b"},
		{"one user goes", stateOf(inbound("in", "1", a, b)), stateOf(inbound("in", "1", b)), "remove_users in -a"},
		{
			"a changed account leaves before it comes", stateOf(inbound("in", "1", a)), stateOf(inbound("in", "1", changed)),
			"remove_users in -a; add_users in +a",
		},
		{"changed limits", stateOf(inbound("in", "1", a)), stateOf(inbound("in", "1", limited)), "update_users in +a"},
		{"another shell takes its users along", stateOf(inbound("in", "1", a)), stateOf(inbound("in", "2", a, b)), "replace_inbound in +a +b"},
		{
			"an inbound of another tag on one port: the old one goes first", stateOf(inbound("old", "1", a)), stateOf(inbound("new", "1", a)),
			"remove_inbound old; add_inbound new; add_users new +a",
		},
		{"another default", stateOf(outbound("a", "1"), outbound("b", "1")), stateOf(outbound("b", "1"), outbound("a", "1")), "default_outbound b"},
		{
			"an outbound is there before the rules name it, and until they do not",
			stateOf(outbound("a", "1"), outbound("old", "1"), "1"), stateOf(outbound("a", "1"), outbound("new", "1"), "2"),
			"put_outbound new; set_routing; remove_outbound old",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := xraytest.OperationsText(state.Diff(c.from, c.to)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestNeedsNewWorker(t *testing.T) {
	from, to := stateOf(), stateOf()
	if reason := state.NeedsNewWorker(from, to); reason != "" {
		t.Errorf("equal bases: %q", reason)
	}
	to.DNS, to.Policy = json.RawMessage("{}"), json.RawMessage("{}")
	if reason := state.NeedsNewWorker(from, to); reason != "" {
		t.Errorf("dns and policy are live: %q", reason)
	}
	to.Base.Observatory, to.Base.BurstObservatory = json.RawMessage("{}"), json.RawMessage("{}")
	if reason := state.NeedsNewWorker(from, to); reason != "burstObservatory, observatory changed" {
		t.Errorf("got %q", reason)
	}
}

// states draws small states, so that two of them have much in common.
func states() *rapid.Generator[state.State] {
	return rapid.Custom(func(t *rapid.T) state.State {
		s := state.State{Inbounds: map[string]state.Inbound{}}
		object := rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage("{}"), json.RawMessage(`{"a":1}`)})
		s.DNS, s.Policy = object.Draw(t, "dns"), object.Draw(t, "policy")
		for _, tag := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"in1", "in2", "in3"}), 0, 3, rapid.ID).Draw(t, "inbounds") {
			in := inbound(tag, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "config"))
			var clients []state.Client
			for _, email := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, "clients") {
				clients = append(clients, client(email, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "account")))
			}
			in.Clients = state.SortClients(clients)
			s.Inbounds[tag] = in
		}
		for _, tag := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"o1", "o2", "o3"}), 0, 3, rapid.ID).Draw(t, "outbounds") {
			s.Outbounds = append(s.Outbounds, outbound(tag, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "out config")))
		}
		if rapid.Bool().Draw(t, "routed") {
			s.Routing = json.RawMessage(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "routing"))
		}
		return s
	})
}

// same compares two states. The order of outbounds does not matter, except for the first,
// which is the default.
func same(a, b state.State) error {
	if !maps.EqualFunc(a.Inbounds, b.Inbounds, func(x, y state.Inbound) bool {
		return slices.Equal(x.Config, y.Config) && slices.EqualFunc(x.Clients, y.Clients, (*state.Client).Equal)
	}) {
		return fmt.Errorf("inbounds %v and %v", a.Inbounds, b.Inbounds)
	}
	if a.DefaultOutbound() != b.DefaultOutbound() || !reflect.DeepEqual(outboundsByTag(a), outboundsByTag(b)) {
		return fmt.Errorf("outbounds %v and %v", a.Outbounds, b.Outbounds)
	}
	if !slices.Equal(a.Routing, b.Routing) {
		return fmt.Errorf("routing %s and %s", a.Routing, b.Routing)
	}
	if !slices.Equal(a.DNS, b.DNS) || !slices.Equal(a.Policy, b.Policy) {
		return fmt.Errorf("dns %s and %s, policy %s and %s", a.DNS, b.DNS, a.Policy, b.Policy)
	}
	return nil
}

// share makes to have the clients of from where they are equal, as a state has that was made from
// another one.
func share(from, to state.State) {
	for tag, in := range to.Inbounds {
		for i, c := range in.Clients {
			if known := from.Inbounds[tag].Clients.Find(c.Email); known != nil && known.Equal(c) {
				in.Clients[i] = known
			}
		}
	}
}

func outboundsByTag(s state.State) map[string]string {
	m := map[string]string{}
	for _, o := range s.Outbounds {
		m[o.Tag] = string(o.Config)
	}
	return m
}

func TestDiffLeadsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := states().Draw(t, "from"), states().Draw(t, "to")
		if rapid.Bool().Draw(t, "shared") {
			share(from, to)
		}
		ops := state.Diff(from, to)
		if err := same(xraytest.After(from, ops), to); err != nil {
			t.Fatalf("%s leads elsewhere: %v", xraytest.OperationsText(ops), err)
		}
		most := rapid.IntRange(1, 4).Draw(t, "at once")
		together := state.TogetherWithClients(state.Diff(state.State{}, to), to, most)
		if err := same(xraytest.After(state.State{}, together), to); err != nil {
			t.Fatalf("with clients at once it leads elsewhere: %v", err)
		}
		beforeTheyListen(t, together, to, most)
		if len(ops) > 0 && same(from, to) == nil {
			t.Fatalf("equal states differ by %s", xraytest.OperationsText(ops))
		}
	})
}

// beforeTheyListen checks that inbounds have all their clients once they listen, and that no operation has too
// many of them.
func beforeTheyListen(t *rapid.T, ops []state.Operation, to state.State, most int) {
	has := map[string]int{}
	for _, op := range ops {
		if len(op.Users) > most {
			t.Fatalf("%s %s has %d clients", op.Kind, op.Tag, len(op.Users))
		}
		has[op.Tag] += len(op.Users)
		switch op.Kind {
		case state.OpAddInbound, state.OpReplaceInbound, state.OpOpenInbound:
			if want := len(to.Inbounds[op.Tag].Clients); has[op.Tag] != want {
				t.Fatalf("%s %s comes after %d clients, want %d", op.Kind, op.Tag, has[op.Tag], want)
			}
		default:
		}
	}
}

// After a failure of any operation, the diff to the first state leads back to it.
func TestDiffLeadsBackFromAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := states().Draw(t, "from"), states().Draw(t, "to")
		ops := state.Diff(from, to)
		stopped := xraytest.After(from, ops[:rapid.IntRange(0, len(ops)).Draw(t, "done")])
		if err := same(xraytest.After(stopped, state.Diff(stopped, from)), from); err != nil {
			t.Fatal(err)
		}
	})
}

func manyClients(n int) state.State {
	clients := make([]state.Client, n)
	for i := range clients {
		email := fmt.Sprintf("%020x", i)
		clients[i] = client(email, fmt.Sprintf(`{"email":%q,"id":"00000000-0000-4000-8000-%012x"}`, email, i))
	}
	return stateOf(inbound("in", `{"port":443}`, clients...), outbound("direct", "{}"))
}

// 100,000 clients, of which one differs.
func BenchmarkDiffOneOf100000(b *testing.B) {
	from, to := manyClients(100_000), manyClients(100_000)
	in := to.Inbounds["in"]
	in.Clients = in.Clients.With(state.SortClients([]state.Client{client("new", "{}")}))
	to.Inbounds["in"] = in
	for b.Loop() {
		if n := len(state.Diff(from, to)); n != 1 {
			b.Fatalf("%d operations", n)
		}
	}
}
