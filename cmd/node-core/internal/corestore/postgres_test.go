package corestore

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/internal/postgrestest"
)

// TestPostgres runs all tests of this package once more, on PostgreSQL. Those about SQLite's file
// are the same then: they call Open and not openStore.
func TestPostgres(t *testing.T) {
	postgrestest.Again(t, 10, "-test.skip=^TestPostgres$")
}

// onPostgres returns a server for a test of PostgreSQL alone. In the run of TestPostgres there is
// one already; a test that is run by its name gets one of its own.
func onPostgres(t testing.TB) *postgrestest.Server {
	t.Helper()
	if server := postgrestest.Running(); server != nil {
		return server
	}
	if named := flag.Lookup("test.run"); named.Value.String() == "" {
		t.Skip("NOT RUN on SQLite: TestPostgres runs this test on PostgreSQL (apt-get install postgresql)")
	}
	return postgrestest.Start(t)
}

// A migration for one database needs one for the other too: both have the same
// tables, columns, indexes and references.
func TestBothDatabasesHaveTheSameTables(t *testing.T) {
	server := onPostgres(t)
	sqlite, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer sqlite.Close()
	postgres, err := OpenPostgres(t.Context(), Postgres{URL: server.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer postgres.Close()
	want, have := sqliteTables(t, sqlite), postgresTables(t, postgres)
	// raiseClients of SQLite alone looks by it. On PostgreSQL it would keep updates of sync_status from being HOT.
	delete(want, "index of nodes: id 0 true nodes_failed")
	for _, line := range slices.Sorted(maps.Keys(want)) {
		if !have[line] {
			t.Errorf("PostgreSQL lacks: %s (add it to migrations/postgres)", line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(have)) {
		if !want[line] {
			t.Errorf("PostgreSQL alone has: %s (add it to migrations)", line)
		}
	}
}

var spaces = regexp.MustCompile(`\s+`)

// sqliteTables describes tables by lines, with the names that PostgreSQL has for types.
func sqliteTables(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	types := map[string]string{"INTEGER": "bigint", "TEXT": "text", "BLOB": "bytea"}
	lines := map[string]bool{}
	rows, err := s.read.QueryContext(t.Context(), `SELECT m.name, c.name, CASE WHEN c.hidden > 0 THEN 'generated '||lower(c.type) ELSE c.type END, c."notnull" OR c.pk, coalesce(c.dflt_value, '')
		FROM sqlite_master m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%'
		UNION ALL SELECT 'index of '||m.name, (SELECT group_concat(name, ',') FROM (SELECT name FROM pragma_index_info(i.name) ORDER BY seqno)), i."unique", i.partial, CASE i.origin WHEN 'c' THEN i.name ELSE '' END
		FROM sqlite_master m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%'
		UNION ALL SELECT 'reference of '||m.name, f."from", f."table"||'.'||f."to", 0, f.on_delete
		FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'
		UNION ALL SELECT 'index of '||m.name, c.name, 1, 0, '' FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%' AND c.pk = 1 AND c.type = 'INTEGER'
			AND (SELECT count(*) FROM pragma_table_info(m.name) WHERE pk > 0) = 1`)
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var table, column, kind, rest string
		var flag bool
		err := r.Scan(&table, &column, &kind, &flag, &rest)
		if name, is := types[kind]; is {
			kind = name
		}
		lines[strings.TrimSpace(fmt.Sprintf("%s: %s %s %t %s", table, column, kind, flag, spaces.ReplaceAllString(rest, " ")))] = true
		return struct{}{}, err
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

// postgresTables does the same for PostgreSQL.
func postgresTables(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	rows, err := s.read.QueryContext(t.Context(), `
		WITH tables AS (SELECT oid, relname::text AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
			AND NOT relispartition AND relname NOT IN ('sqlite_sequence', 'goose_db_version'))
		SELECT t.name, a.attname::text, CASE WHEN a.attgenerated != '' THEN 'generated ' ELSE '' END||format_type(a.atttypid, a.atttypmod), a.attnotnull,
			CASE WHEN a.attidentity != '' OR a.attgenerated != '' THEN '' ELSE coalesce(regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::[a-z]+', ''), '') END
		FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
		UNION ALL SELECT 'index of '||t.name, (SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM unnest(i.indkey::smallint[]) WITH ORDINALITY k (attnum, n)
			JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum), i.indisunique::int::text, i.indpred IS NOT NULL,
			CASE WHEN EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = i.indexrelid) THEN '' ELSE i.indexrelid::regclass::text END
		FROM tables t JOIN pg_index i ON i.indrelid = t.oid
		UNION ALL SELECT 'reference of '||t.name, a.attname, c.confrelid::regclass||'.'||f.attname, false,
			CASE c.confdeltype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' WHEN 'r' THEN 'RESTRICT' ELSE 'NO ACTION' END
		FROM tables t JOIN pg_constraint c ON c.conrelid = t.oid AND c.contype = 'f'
		JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = c.conkey[1] JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = c.confkey[1]`)
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var table, column, kind, rest string
		var flag bool
		err := r.Scan(&table, &column, &kind, &flag, &rest)
		lines[strings.TrimSpace(fmt.Sprintf("%s: %s %s %t %s", table, column, kind, flag, spaces.ReplaceAllString(rest, " ")))] = true
		return struct{}{}, err
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}

// Ids are given out by the trigger note_ids, those of events by number_event, or by an identity, and texts are ordered by their
// bytes, whatever the database's own locale is.
func TestTablesOfPostgres(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for what, query := range map[string]string{
		"a key without an id": `SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE relnamespace = current_schema()::regnamespace
			AND relkind = 'r' AND relname NOT IN ('core', 'removed_names') AND relname NOT LIKE 'goose_%' AND attname = 'id' AND attidentity = '' AND atttypid = 'bigint'::regtype
			AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = c.oid AND tgname IN ('note_ids', 'number_event'))`,
		"a text in another order": `SELECT relname||'.'||attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE relnamespace = current_schema()::regnamespace
			AND relkind IN ('r', 'p') AND relname NOT LIKE 'goose_%' AND atttypid = 'text'::regtype AND attcollation != '"C"'::regcollation`,
	} {
		rows, err := s.read.QueryContext(t.Context(), query)
		found, err := collect(rows, err, func(r *sql.Rows) (name string, err error) { return name, r.Scan(&name) })
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v %v", what, found, err)
		}
	}
}

// Several instances open a new database at once, and are one Core then.
func TestInstancesOpenTogether(t *testing.T) {
	url := onPostgres(t).Database(t)
	var all sync.WaitGroup
	stores := make([]*Store, 4)
	for i := range stores {
		all.Go(func() {
			var err error
			if stores[i], err = OpenPostgres(context.Background(), Postgres{URL: url}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, s := range stores {
		defer s.Close()
		if s.Identity() != stores[0].Identity() || string(s.keys.secret) != string(stores[0].keys.secret) {
			t.Error("two instances have not one identity and one secret")
		}
	}
	// Each edits at the same time: no id, revision or name is given out twice.
	node, _, err := stores[0].AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	before, err := stores[0].Revision(t.Context(), node.ID)
	if err != nil {
		t.Fatal(err)
	}
	const each = 10
	ids := make(chan int64, len(stores)*each)
	for i, s := range stores {
		all.Go(func() {
			for n := range each {
				user, err := s.AddUser(context.Background(), fmt.Sprintf("user %d of %d", n, i))
				if err != nil {
					t.Error(err)
					return
				}
				sub, _, err := s.AddSubscription(context.Background(), user.ID)
				if err != nil {
					t.Error(err)
				}
				ids <- sub.ID
			}
		})
	}
	all.Wait()
	close(ids)
	given := map[int64]bool{}
	for id := range ids {
		if given[id] {
			t.Errorf("id %d was given out twice", id)
		}
		given[id] = true
	}
	if after, err := stores[1].Revision(t.Context(), node.ID); err != nil || after <= before || len(given) != len(stores)*each {
		t.Errorf("revision %d → %d (%v) after %d subscriptions", before, after, err, len(given))
	}
}

// A password stands in no error and not in a store's text.
func TestPasswordsOfURLs(t *testing.T) {
	for _, url := range []string{
		"postgres://core:hunter2@/nothing?host=/nonexistent",
		"postgres://core:hunter2@127.0.0.1:1/nothing?connect_timeout=2",
		"postgres://core:hunter2@127.0.0.1:port/nothing",
		"postgres://core:hunter2@[::1/nothing",
		"postgres://core:hunter2%ZZ@localhost/nothing",
		"mysql://core:hunter2@localhost/nothing",
	} {
		s, err := OpenPostgres(t.Context(), Postgres{URL: url})
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s opened", url)
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
	}
}

// The texts of statements for many rows hardly ever come again. They don't stay prepared, where they would
// take the place of those that do, and PostgreSQL's memory in each connection.
func TestStatementsForManyRowsAreNotKept(t *testing.T) {
	s, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.write.SetMaxOpenConns(1)
	user, err := s.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	subs := make([]NewSubscription, rowsPerInsert)
	for i := range subs {
		subs[i].User = user.Name
	}
	if _, err := s.BulkSubscriptions(t.Context(), subs, nil); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour)
	for n := range 3 {
		var edits []SubscriptionEdit
		for i, sub := range subs {
			edits = append(edits, SubscriptionEdit{sub.UUID, func(sub *Subscription) error {
				sub.ExpiresAt = nil
				if i%3 == n {
					sub.ExpiresAt = &end
				}
				return nil
			}})
		}
		if _, err := s.BulkSubscriptions(t.Context(), nil, edits); err != nil {
			t.Fatal(err)
		}
	}
	for i, sub := range subs {
		if got, err := s.Subscription(t.Context(), sub.UUID); err != nil || (got.ExpiresAt != nil) != (i%3 == 2) {
			t.Fatalf("subscription %d ends at %v (%v)", i, got.ExpiresAt, err)
		}
	}
	rows, err := s.write.QueryContext(t.Context(), `SELECT left(statement, 100), cardinality(parameter_types) FROM pg_prepared_statements
		WHERE cardinality(parameter_types) > 256 OR cardinality(parameter_types) > 64 AND statement ~ '\mNULL\M'`)
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var text string
		var parameters int
		err := r.Scan(&text, &parameters)
		t.Errorf("a statement with %d parameters stays prepared: %s...", parameters, text)
		return struct{}{}, err
	}); err != nil {
		t.Fatal(err)
	}
}
