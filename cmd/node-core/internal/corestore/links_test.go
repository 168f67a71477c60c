package corestore

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// Columns that links do not depend on. Every other column of these tables raises the version of
// links: a new one is added here, or to the triggers of both databases.
var unlinked = map[string][]string{
	"nodes": {
		"id", "auth_key_hash", "status", "sync_status", "revision", "applied_revision", "last_seen_at", "last_error", "last_error_code", "last_error_at",
		"created_at", "document_etag", "document_revision", "boot", "earlier_boot", "machine", "two_daemons_at", "next_key_hash", "next_key_seed",
		"last_key_hash", "last_key_ends", "refused_revision", "note", "tags", "multiplier", "budget_bytes", "budget_day", "budget_warn", "routing_id", "told", "told_at", "layout",
	},
	"node_protocols":   {"id", "created_at", "note", "template_id", "overrides"},
	"access_groups":    {"id", "name", "note", "created_at"},
	"hosts":            {"id"},
	"group_nodes":      {},
	"group_protocols":  {},
	"client_templates": {},
	"client_rules":     {},
}

// Each change of a row that links are made of raises the version once it is committed, and no other
// change does: a version that rises without need costs a cache.
func TestVersionOfLinks(t *testing.T) {
	s := openStore(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	version := func() (n int64) {
		t.Helper()
		must(s.read.QueryRowContext(t.Context(), `SELECT version FROM link_changes`).Scan(&n))
		return n
	}
	change := func(what string, raises bool, statement string, args ...any) {
		t.Helper()
		before := version()
		err := s.inTransaction(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), statement, args...)
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if raised := version() > before; raised != raises {
			t.Errorf("%s: the version is raised: %v, want %v", what, raised, raises)
		}
	}
	before := version()
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	must(err)
	p, err := s.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Protocol: "vless", Port: 443, Config: []byte(`{}`)})
	must(err)
	_, err = s.AddHost(t.Context(), Host{ProtocolID: p.ID})
	must(err)
	_, err = s.AddGroup(t.Context(), Group{Name: "g", Nodes: []int64{node.ID}, Protocols: []int64{p.ID}})
	must(err)
	if version() < before+4 {
		t.Errorf("four changes raise the version from %d to %d", before, version())
	}
	for _, table := range []string{"client_templates", "client_rules"} {
		change(table, true, `INSERT INTO `+table+` (name, document, changed_at) VALUES ('a', '{}', 1)`)
	}
	change("a budget that is used up", true, `INSERT INTO node_budgets (node_id, used, starts_at, ends_at, spent) VALUES (?, 5, 0, 1, 1)`, node.ID)
	change("more of it", false, `UPDATE node_budgets SET used = 6, warned = 1`)
	change("a budget that begins anew", true, `UPDATE node_budgets SET spent = 0`)
	columns, err := (&mover{source: s, in: begin(t, s)}).tables(t.Context())
	must(err)
	for _, table := range columns {
		without, linked := unlinked[table.name]
		if !linked {
			continue
		}
		for _, column := range table.columns {
			if table.name == "group_nodes" || table.name == "group_protocols" || column == "node_id" || column == "protocol_id" {
				continue // they refer to other rows; that rows come and go is tried above and below
			}
			raises := !slices.Contains(without, column)
			if column == "auth_key_hash" || column == "next_key_hash" || column == "last_key_hash" {
				change(table.name+"."+column, raises, `UPDATE `+table.name+` SET `+column+` = ?`, []byte{1})
				continue
			}
			if column != "id" {
				// A text of digits is a number for the columns that want one.
				change(table.name+"."+column, raises, `UPDATE `+table.name+` SET `+column+` = `+other(t, s, table.name, column))
			}
			change(table.name+"."+column+", as it is", table.name == "hosts" || len(without) == 0, `UPDATE `+table.name+` SET `+column+` = `+column)
		}
	}
	for _, table := range []string{"group_protocols", "group_nodes", "hosts", "node_protocols", "nodes", "client_rules", "client_templates"} {
		change("removed "+table, true, `DELETE FROM `+table)
	}
	user, err := s.AddUser(t.Context(), "alice")
	must(err)
	before = version()
	sub, _, err := s.AddSubscription(t.Context(), user.ID)
	must(err)
	if found, err := s.SubscriptionByLink(t.Context(), s.LinkToken(sub)); err != nil || found.User != "alice" || found.Changes != before {
		t.Errorf("a fetch begins with %+v, %v, want the version %d", found, err, before)
	}
}

func begin(t *testing.T, s *Store) *sql.Tx {
	t.Helper()
	tx, err := s.read.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

// other returns an expression of SQL with another value than the column has.
func other(t *testing.T, s *Store, table, column string) string {
	t.Helper()
	var value any
	if err := s.read.QueryRowContext(t.Context(), `SELECT `+column+` FROM `+table+` LIMIT 1`).Scan(&value); err != nil {
		t.Fatal(err)
	}
	switch column {
	case "name":
		if table == "access_groups" || table == "nodes" {
			return `'another ' || id`
		}
	case "registered_at", "applied_revision", "last_seen_at", "last_error_at", "two_daemons_at", "refused_revision":
		return "7"
	case "overrides", "link", "document":
		return `'{"flow":"x"}'`
	case "tags":
		return `'["x"]'`
	}
	if _, number := value.(int64); number {
		return "1 - " + column
	}
	return "'another'"
}

// A node that reports the same refusal again changes no status, so that links that are kept stay good.
func TestTheSameRefusalLeavesLinks(t *testing.T) {
	s := openStore(t)
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Protocol: "vless", Listen: "0.0.0.0", Port: 1000, Config: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	var versions []int64
	for range 3 {
		details := map[string]any{"parts": []any{map[string]any{"kind": "inbound", "tag": p.Tag}}}
		if err := s.AddError(t.Context(), node.ID, "", wire.ErrorRequest{Code: "port_in_use", Message: "words", Details: details}); err != nil {
			t.Fatal(err)
		}
		var version int64
		var status string
		if err := s.read.QueryRowContext(t.Context(), `SELECT version, (SELECT status FROM node_protocols) FROM link_changes`).Scan(&version, &status); err != nil || status != "failed" {
			t.Fatalf("the inbound is %q, %v", status, err)
		}
		versions = append(versions, version)
	}
	if versions[1] != versions[0] || versions[2] != versions[0] {
		t.Errorf("the versions of the links are %v", versions)
	}
}
