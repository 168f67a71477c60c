package xray

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func client(email string, account string) Client {
	return Client{Key: email, Tied: true, Email: email, Account: json.RawMessage(account), Slot: uint32(len(email))}
}

func inbound(tag, config string, clients ...Client) Inbound {
	return Inbound{Tag: tag, Protocol: "vless", Config: json.RawMessage(config), Clients: sorted(clients)}
}

func stateOf(parts ...any) State {
	s := State{Inbounds: map[string]Inbound{}}
	for _, part := range parts {
		switch p := part.(type) {
		case Inbound:
			s.Inbounds[p.Tag] = p
		case Outbound:
			s.Outbounds = append(s.Outbounds, p)
		case string:
			s.Routing = json.RawMessage(p)
		}
	}
	return s
}

func outbound(tag, config string) Outbound {
	return Outbound{Tag: tag, Config: json.RawMessage(config)}
}

func TestDiff(t *testing.T) {
	a, b := client("a", `{"id":1}`), client("b", `{"id":2}`)
	changed := client("a", `{"id":3}`)
	limited := a
	limited.Limits.IPs = 2
	for _, c := range []struct {
		name     string
		from, to State
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
			if got := text(Diff(c.from, c.to)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestNeedsNewWorker(t *testing.T) {
	from, to := stateOf(), stateOf()
	if reason := NeedsNewWorker(from, to); reason != "" {
		t.Errorf("equal bases: %q", reason)
	}
	to.DNS, to.Policy = json.RawMessage("{}"), json.RawMessage("{}")
	if reason := NeedsNewWorker(from, to); reason != "" {
		t.Errorf("dns and policy are live: %q", reason)
	}
	to.Base.Observatory, to.Base.BurstObservatory = json.RawMessage("{}"), json.RawMessage("{}")
	if reason := NeedsNewWorker(from, to); reason != "burstObservatory, observatory changed" {
		t.Errorf("got %q", reason)
	}
}

// states draws small ones, so that two of them have much in common.
func states() *rapid.Generator[State] {
	return rapid.Custom(func(t *rapid.T) State {
		s := State{Inbounds: map[string]Inbound{}}
		object := rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage("{}"), json.RawMessage(`{"a":1}`)})
		s.DNS, s.Policy = object.Draw(t, "dns"), object.Draw(t, "policy")
		for _, tag := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"in1", "in2", "in3"}), 0, 3, rapid.ID).Draw(t, "inbounds") {
			in := inbound(tag, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "config"))
			for _, email := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, "clients") {
				in.Clients = append(in.Clients, client(email, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "account")))
			}
			in.Clients = sorted(in.Clients)
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

// same compares what runs; the order of outbounds means nothing but for the
// first.
func same(a, b State) error {
	if !maps.EqualFunc(a.Inbounds, b.Inbounds, func(x, y Inbound) bool {
		return slices.Equal(x.Config, y.Config) && slices.EqualFunc(x.Clients, y.Clients, func(a, b Client) bool { return a.equal(&b) })
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

func outboundsByTag(s State) map[string]string {
	m := map[string]string{}
	for _, o := range s.Outbounds {
		m[o.Tag] = string(o.Config)
	}
	return m
}

func TestDiffLeadsThere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := states().Draw(t, "from"), states().Draw(t, "to")
		ops := Diff(from, to)
		if err := same(after(from, ops), to); err != nil {
			t.Fatalf("%s leads elsewhere: %v", text(ops), err)
		}
		if err := same(after(State{}, withClients(Diff(State{}, to), to)), to); err != nil {
			t.Fatalf("with clients at once it leads elsewhere: %v", err)
		}
		if len(ops) > 0 && same(from, to) == nil {
			t.Fatalf("equal states differ by %s", text(ops))
		}
	})
}

// A failure after any operation can be undone by the diff back.
func TestDiffLeadsBackFromAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := states().Draw(t, "from"), states().Draw(t, "to")
		ops := Diff(from, to)
		stopped := after(from, ops[:rapid.IntRange(0, len(ops)).Draw(t, "done")])
		if err := same(after(stopped, Diff(stopped, from)), from); err != nil {
			t.Fatal(err)
		}
	})
}

func manyClients(n int) State {
	clients := make([]Client, n)
	for i := range clients {
		email := fmt.Sprintf("%020x", i)
		clients[i] = client(email, fmt.Sprintf(`{"email":%q,"id":"00000000-0000-4000-8000-%012x"}`, email, i))
	}
	return stateOf(inbound("in", `{"port":443}`, clients...), outbound("direct", "{}"))
}

// 100,000 clients of which one differs. The ratio is to one walk over the same
// map: what any comparison has to do.
func BenchmarkDiffOneOf100000(b *testing.B) {
	from, to := manyClients(100_000), manyClients(100_000)
	in := to.Inbounds["in"]
	in.Clients = sorted(append(in.Clients, client("new", "{}")))
	to.Inbounds["in"] = in
	for b.Loop() {
		if n := len(Diff(from, to)); n != 1 {
			b.Fatalf("%d operations", n)
		}
	}
}
