package adminapi

import (
	"fmt"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// The links of a subscription are those of now after each edit, though they are kept until one.
func TestLinksAfterEdits(t *testing.T) {
	w := newWaiting(t)
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	details, _, err := w.subscriptionAdd(t.Context(), subscriptionArgs{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	node := func(edit func(*corestore.Node)) func() error {
		return func() error {
			_, _, err := w.store.EditNode(t.Context(), "ams2", func(n *corestore.Node) error { edit(n); return nil })
			return err
		}
	}
	for _, c := range []struct {
		edit           string
		do             func() error
		links, without int
	}{
		{"nothing", func() error { return nil }, 2, 0},
		{"a node in maintenance", node(func(n *corestore.Node) { n.Maintenance = true }), 1, 1},
		{"the same, asked again", func() error { return nil }, 1, 1},
		{"it serves again", node(func(n *corestore.Node) { n.Maintenance = false }), 2, 0},
		{"an inbound more", func() error { _, err := w.tryInbound(t, "vless", `{"port":2,"tag":"in-2"}`); return err }, 3, 0},
		{"a node less", func() error { return w.store.RemoveNode(t.Context(), w.ams2.ID) }, 2, 0},
	} {
		if err := c.do(); err != nil {
			t.Fatal(c.edit, err)
		}
		for range 2 { // read, and kept
			shown, err := w.subscriptionShow(t.Context(), idArgs{ID: fmt.Sprint(details.ID)})
			if err != nil || len(shown.Links) != c.links || len(shown.NoLinks) != c.without {
				t.Errorf("%s: %d links, %q, %v; want %d and %d reasons", c.edit, len(shown.Links), shown.NoLinks, err, c.links, c.without)
			}
		}
	}
	// Another group has other links, though nothing has changed since.
	none, err := w.store.AddGroup(t.Context(), corestore.Group{Name: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		group int64
		links int
	}{{none.ID, 0}, {details.GroupID, 2}, {none.ID, 0}} {
		if plan, err := w.linkPlan(t.Context(), c.group); err != nil || len(plan.plan.For(details.Subscription, "alice")) != c.links {
			t.Errorf("group %d has %d ways, %v; want %d", c.group, len(plan.plan.For(details.Subscription, "alice")), err, c.links)
		}
	}
}
