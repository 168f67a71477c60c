package corestore

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
)

// lastBeforeTerms is the newest migration of the version before subscriptions had terms.
const lastBeforeTerms = 10

// A database of the version before subscriptions had terms is carried over: everybody who was
// let in is let in everywhere, a disabled subscription stays out, nodes keep their revision and
// have no routing profile, and inbounds stay as they are.
func TestDatabaseWithoutTermsIsCarriedOver(t *testing.T) {
	dir := t.TempDir()
	db, err := open(filepath.Join(dir, fileName), "immediate")
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	old, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.UpTo(t.Context(), lastBeforeTerms); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO nodes (id, name, revision, created_at) VALUES (5, 'fra1', 7, 1), (6, 'ams1', 8, 1)`,
		`INSERT INTO node_protocols (id, node_id, tag, protocol, listen, port, config, link, status, created_at) VALUES
			(3, 5, 'vless-1', 'vless', '0.0.0.0', 443, '{"protocol":"vless"}', '{"sni":"a.example"}', 'active', 1),
			(4, 6, 'vless-1', 'vless', '0.0.0.0', 443, '{"protocol":"vless"}', '{}', 'active', 1)`,
		`INSERT INTO users (id, name, created_at) VALUES (1, 'alice', 1), (2, 'bob', 1)`,
		`INSERT INTO subscriptions (id, user_id, uuid, enabled, bytes_up, bytes_down, created_at, mtproto_secret) VALUES
			(1, 1, 'a', 1, 10, 20, 1, 's'), (2, 2, 'b', 0, 0, 0, 1, 't')`,
		`INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down) VALUES (5, 60000, 1, 1, 3, 10, 20)`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for node, revision := range map[int64]int64{5: 7, 6: 8} {
		rows, err := s.NodeRows(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		if rows.Node.Revision != revision || !rows.Node.Enabled || rows.Routing != nil || rows.Node.Multiplier != 1000 {
			t.Errorf("node %d is %+v with the profile %+v", node, rows.Node, rows.Routing)
		}
		if len(rows.Subscriptions) != 1 || rows.Subscriptions[0].ID != 1 || rows.Subscriptions[0].Status != Active || !rows.Reach.Has(rows.Subscriptions[0].GroupID, rows.Protocols[0].ID) {
			t.Errorf("node %d serves %+v", node, rows.Subscriptions)
		}
		if p := rows.Protocols[0]; !p.Enabled || p.TemplateID != 0 || p.Status != "active" || p.Overrides != (Protocol{}.Overrides) {
			t.Errorf("node %d has the inbound %+v", node, p)
		}
	}
	subs, err := s.Subscriptions(t.Context())
	if err != nil || len(subs) != 2 || subs[1].Status != Disabled || subs[0].UsedBytes != 30 || subs[0].ExpiresAt != nil || subs[0].Period != "none" {
		t.Errorf("subscriptions %+v, %v", subs, err)
	}
	if _, err := Check(t.Context(), dir); err != nil {
		t.Error(err)
	}
	// Nodes that are added from now on have the new columns.
	node, _, err := s.AddNode(t.Context(), "new", "", time.Hour)
	if err != nil || node.RoutingID != DefaultRouting {
		t.Errorf("a new node has the profile %d, %v", node.RoutingID, err)
	}
}
