package rendered

import (
	"slices"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire/delta"
)

// A peer of WireGuard that comes, changes or goes is one client in a delta: neither the inbound nor
// another peer is sent. A subscription without a key of WireGuard is no peer, and its change none of the
// inbound.
func TestPeersAreClientsInDeltas(t *testing.T) {
	w := newWorld(t, 1)
	p := inbounds[slices.IndexFunc(inbounds, func(p corestore.Protocol) bool { return p.Protocol == "wireguard" })]
	p.NodeID = w.nodes[0].ID
	p, err := w.store.AddProtocol(t.Context(), p)
	w.must(err)
	add := func(key string) corestore.Subscription {
		sub := corestore.Subscription{UserID: w.users[0].ID}
		sub.GroupID = corestore.DefaultGroup
		sub, _, err := w.store.InsertSubscription(t.Context(), sub)
		w.must(err)
		w.rekey(sub, key)
		return sub
	}
	for range 300 { // more than a chunk
		add("")
	}
	first := add("one")
	r := New(w.store)
	var held *Document
	next := func() delta.InboundDelta {
		t.Helper()
		base := held
		etag := ""
		if base != nil {
			etag = base.ETag
		}
		d, change, err := r.Delta(t.Context(), w.nodes[0].ID, etag)
		w.must(err)
		w.must(r.Asked(w.nodes[0].ID, d))
		w.sameAsBuild("peers", w.nodes[0].ID, jsonOf(t, d))
		held = d
		if base == nil {
			return delta.InboundDelta{}
		}
		if change == nil {
			t.Fatal("there is no delta")
		}
		w.leadsTo(base, change, jsonOf(t, d))
		all := change.Services[delta.Xray].Inbounds
		if len(all) == 0 {
			return delta.InboundDelta{}
		}
		if len(all) != 1 || all[0].Tag != p.Tag || all[0].Inbound != nil || all[0].Removed {
			t.Fatalf("the delta has more than peers: %s", change.Append(nil))
		}
		return all[0]
	}
	next()
	second := add("two")
	if c := next().Clients; len(c.Added) != 1 || len(c.Changed)+len(c.Removed) != 0 {
		t.Errorf("a peer that comes: %+v", c)
	}
	w.rekey(second, "three")
	if c := next().Clients; len(c.Changed) != 1 || len(c.Added)+len(c.Removed) != 0 {
		t.Errorf("a peer with another key: %+v", c)
	}
	add("")
	if c := next().Clients; !c.IsZero() {
		t.Errorf("a subscription without a key: %+v", c)
	}
	w.rekey(first, "")
	if c := next().Clients; len(c.Removed) != 1 || c.Removed[0] != first.UUID || len(c.Added)+len(c.Changed) != 0 {
		t.Errorf("a peer that loses its key: %+v", c)
	}
}

// rekey gives a subscription a key of WireGuard, or none.
func (w *world) rekey(sub corestore.Subscription, key string) {
	_, _, err := w.store.EditSubscription(w.t.Context(), sub.UUID, func(s *corestore.Subscription) error {
		s.Credentials = nil
		if key != "" {
			s.Credentials = []corestore.Credential{{Protocol: "wireguard", PublicKey: key, AllowedIPs: []string{"10.0.0.2/32"}}}
		}
		return nil
	})
	w.must(err)
}
