package adminapi

import (
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // writes rows that would take long to add one by one

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

const (
	manySubscriptions = 100_000
	manyNodes         = 10_000
	bulkRounds        = 3
)

// bulkOf makes users with a subscription each.
func bulkOf(from, n int) coreapi.BulkUsers {
	var bulk coreapi.BulkUsers
	for i := range n {
		bulk.Create = append(bulk.Create, coreapi.BulkNewUser{NewUser: coreapi.NewUser{Name: fmt.Sprint("user-", from+i)}, Subscriptions: []coreapi.SubscriptionEdit{{}}})
	}
	return bulk
}

// BenchmarkManySubscriptions measures a Core with 100,000 subscriptions on SQLite: a page of 100
// (aim 50 ms), one edit (20 ms), a node's configuration rendered (1 s), and 10,000 users with
// subscriptions added in one call (2 s). It reports milliseconds.
func BenchmarkManySubscriptions(b *testing.B) {
	store, err := corestore.Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s := NewServer(b.Context(), store, hub.New(), "https://core.example", "", slog.New(slog.DiscardHandler))
	node, err := s.nodeAdd(b.Context(), nodeArgs{Node: "fra1"})
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := s.protocolAdd(b.Context(), coreapi.NewProtocol{Node: "fra1", Flags: coreapi.InboundFlags{Protocol: "vless", Listen: "0.0.0.0", Port: 443, Security: "reality"}}); err != nil {
		b.Fatal(err)
	}
	for from := 0; from < manySubscriptions; from += corestore.MaxBulk {
		if _, _, err := s.bulkUsers(b.Context(), bulkOf(from, corestore.MaxBulk)); err != nil {
			b.Fatal(err)
		}
	}
	subs, err := store.FindSubscriptions(b.Context(), corestore.SubscriptionFilter{Limit: corestore.MaxBulk})
	if err != nil {
		b.Fatal(err)
	}
	took := map[string]time.Duration{}
	measure := func(name string, run func() error) {
		began := time.Now()
		if err := run(); err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		took[name] += time.Since(began)
	}
	n := 0
	for b.Loop() {
		n++
		var page []corestore.Subscription
		measure("page-ms", func() (err error) {
			page, _, err = store.ListSubscriptions(b.Context(), corestore.SubscriptionFilter{}, corestore.List{Limit: 100, After: &corestore.Position{ID: 1}})
			return err
		})
		for _, order := range []string{"user", "-expires"} {
			measure("page-by-"+strings.TrimPrefix(order, "-")+"-ms", func() error {
				list := corestore.List{Sort: order, Limit: 100}
				for range 2 { // the first page, and the one after it
					_, next, err := store.ListSubscriptions(b.Context(), corestore.SubscriptionFilter{Status: coreapi.Active}, list)
					if err != nil {
						return err
					}
					list.After = next
				}
				return nil
			})
		}
		measure("edit-ms", func() error {
			_, _, err := s.subscriptionEdit(b.Context(), subscriptionArgs{ID: page[n%100].UUID, SubscriptionEdit: coreapi.SubscriptionEdit{TermsEdit: coreapi.TermsEdit{LimitIPs: new(int64(n))}}})
			return err
		})
		measure("config-ms", func() error {
			rows, err := store.NodeRows(b.Context(), node.ID)
			if err == nil {
				_, err = nodeconfig.Build(rows)
			}
			return err
		})
	}
	// The bulk calls come last: an edit after one of them would pay for moving its pages from the log to
	// the database. Each makes the database larger.
	for round := 1; round <= bulkRounds; round++ {
		measure("bulk-ms", func() error {
			_, _, err := s.bulkUsers(b.Context(), bulkOf(manySubscriptions*round, corestore.MaxBulk))
			return err
		})
		measure("bulk-subscriptions-ms", func() error {
			bulk := coreapi.BulkSubscriptions{Create: make([]coreapi.NewSubscription, corestore.MaxBulk)}
			for i := range bulk.Create {
				bulk.Create[i].User = fmt.Sprint("user-", i)
			}
			_, _, err := s.bulkSubscriptions(b.Context(), bulk)
			return err
		})
		measure("bulk-edits-ms", func() error {
			bulk := coreapi.BulkSubscriptions{Update: make([]coreapi.BulkSubscriptionEdit, corestore.MaxBulk)}
			for i := range bulk.Update {
				bulk.Update[i] = coreapi.BulkSubscriptionEdit{Subscription: fmt.Sprint(subs[i].ID), SubscriptionEdit: coreapi.SubscriptionEdit{TermsEdit: coreapi.TermsEdit{LimitIPs: new(int64(n + round))}}}
			}
			_, _, err := s.bulkSubscriptions(b.Context(), bulk)
			return err
		})
	}
	for round := 1; round <= bulkRounds; round++ {
		measure("bulk-switches-ms", func() error { // each is cut off on all nodes, or let in again
			bulk := coreapi.BulkSubscriptions{Update: make([]coreapi.BulkSubscriptionEdit, corestore.MaxBulk)}
			for i := range bulk.Update {
				bulk.Update[i] = coreapi.BulkSubscriptionEdit{Subscription: subs[i].UUID, Enabled: new(round%2 == 0)}
			}
			_, _, err := s.bulkSubscriptions(b.Context(), bulk)
			return err
		})
		measure("bulk-user-edits-ms", func() error {
			bulk := coreapi.BulkUsers{Update: make([]coreapi.BulkUserEdit, corestore.MaxBulk)}
			for i := range bulk.Update {
				bulk.Update[i] = coreapi.BulkUserEdit{User: fmt.Sprint(subs[i].UserID), UserEdit: coreapi.UserEdit{Note: new(fmt.Sprint("note ", round))}}
			}
			_, _, err := s.bulkUsers(b.Context(), bulk)
			return err
		})
		measure("bulk-user-switches-ms", func() error {
			bulk := coreapi.BulkUsers{Update: make([]coreapi.BulkUserEdit, corestore.MaxBulk)}
			for i := range bulk.Update {
				bulk.Update[i] = coreapi.BulkUserEdit{User: fmt.Sprint(subs[i].UserID), UserEdit: coreapi.UserEdit{Enabled: new(round%2 == 0)}}
			}
			_, _, err := s.bulkUsers(b.Context(), bulk)
			return err
		})
		measure("bulk-renames-ms", func() error {
			bulk := coreapi.BulkUsers{Update: make([]coreapi.BulkUserEdit, corestore.MaxBulk)}
			for i := range bulk.Update {
				bulk.Update[i] = coreapi.BulkUserEdit{User: fmt.Sprint(subs[i].UserID), UserEdit: coreapi.UserEdit{Name: new(fmt.Sprintf("user-%d-%d", i, round))}}
			}
			_, _, err := s.bulkUsers(b.Context(), bulk)
			return err
		})
	}
	for name, total := range took {
		times := n
		if strings.HasPrefix(name, "bulk") {
			times = bulkRounds
		}
		b.ReportMetric(float64(total.Milliseconds())/float64(times), name)
	}
}

// BenchmarkManyNodes measures what is shown at 10,000 nodes with an inbound each: a subscription
// with its links, one node, and a page of nodes.
func BenchmarkManyNodes(b *testing.B) {
	dir := b.TempDir()
	store, err := corestore.Open(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "core.db"))
	if err != nil {
		b.Fatal(err)
	}
	for _, statement := range []string{
		`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) INSERT INTO nodes (id, name, ip, registered_at, created_at) SELECT i, 'node-' || i, '192.0.2.1', 1, 1 FROM n`,
		`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) INSERT INTO node_protocols (id, node_id, tag, protocol, listen, port, config, created_at)
			SELECT i, i, 'vless-1', 'vless', '0.0.0.0', 443, '{"protocol":"vless","port":443,"streamSettings":{"security":"tls","network":"raw"}}', 1 FROM n`,
	} {
		if _, err := db.ExecContext(b.Context(), statement, manyNodes); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	if store, err = corestore.Open(b.Context(), dir); err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	s := NewServer(b.Context(), store, hub.New(), "https://core.example", "", slog.New(slog.DiscardHandler))
	if _, _, err := s.bulkUsers(b.Context(), bulkOf(0, 1)); err != nil {
		b.Fatal(err)
	}
	subs, err := store.Subscriptions(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	var show, node, page time.Duration
	n := 0
	for b.Loop() {
		n++
		began := time.Now()
		if details, err := s.subscriptionShow(b.Context(), idArgs{ID: subs[0].UUID}); err != nil || len(details.Links) != manyNodes {
			b.Fatalf("%d links, %d without, %v", len(details.Links), len(details.NoLinks), err)
		}
		show += time.Since(began)
		began = time.Now()
		if _, err := s.nodeShow(b.Context(), nodeArgs{Node: "node-5000"}); err != nil {
			b.Fatal(err)
		}
		node += time.Since(began)
		began = time.Now()
		if _, _, err := store.ListNodes(b.Context(), "", corestore.List{Sort: "name", Limit: 100}); err != nil {
			b.Fatal(err)
		}
		page += time.Since(began)
	}
	b.ReportMetric(float64(show.Milliseconds())/float64(n), "subscription-show-ms")
	b.ReportMetric(float64(node.Milliseconds())/float64(n), "node-show-ms")
	b.ReportMetric(float64(page.Milliseconds())/float64(n), "node-page-ms")
}

// A cursor of anybody's making neither ends Core nor leads elsewhere than into the list.
func FuzzCursor(f *testing.F) {
	f.Add("eyJpIjo1fQ", "id")
	f.Add("eyJzIjoibmFtZSIsInYiOiJhIiwiaSI6NX0", "name")
	f.Add("eyJpIjoxZTk5fQ", "-id")
	store, err := corestore.Open(f.Context(), f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = store.Close() })
	f.Fuzz(func(t *testing.T, cursor, sort string) {
		list, err := PageIn{Cursor: cursor, Limit: 10}.list(sort)
		if err != nil {
			return
		}
		if _, _, err := store.ListUsers(t.Context(), corestore.UserFilter{Search: cursor}, list); err != nil && (sort == "id" || sort == "name") {
			t.Errorf("cursor %q by %q: %v", cursor, sort, err)
		}
	})
}

// The audit log keeps of a body a bounded JSON object without notes and objects.
func FuzzDetails(f *testing.F) {
	f.Add([]byte(`{"name":"a","note":"secret","inbound":{"k":"secret"},"list":["secret"]}`), "/users/a")
	f.Add([]byte(`[]`), "/subscriptions/00000000-0000-4000-8000-000000000000/rotate")
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		if kept := details(body, ""); len(kept) > maxDetails || kept[0] != '{' {
			t.Errorf("kept %q", kept)
		}
		if _, err := url.Parse(path); err == nil {
			_ = target(coreapi.Prefix + path)
		}
	})
}
