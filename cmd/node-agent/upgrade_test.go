package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire/delta"
	"nodeagent/store"
)

// A file that does not end as a version that can take over does is told by its own words.
func TestTryProgram(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, c := range []struct {
		name, script string
		limit        time.Duration
		want         string // in the error; empty for none
	}{
		{"it can", "#!/bin/sh\ntest -s \"$3\"/node.db\n", time.Minute, ""},
		{"it fails", "#!/bin/sh\necho 'layout 9' >&2\nexit 1\n", time.Minute, `"layout 9"`},
		{"it hangs", "#!/bin/sh\nexec sleep 600\n", 100 * time.Millisecond, "does not end within 100ms"},
		{"it is no program", "nonsense", time.Minute, "exec format error"},
	} {
		path := filepath.Join(t.TempDir(), "node-agent")
		if err := os.WriteFile(path, []byte(c.script), 0o755); err != nil {
			t.Fatal(err)
		}
		err := tryProgram(t.Context(), path, c.limit, db, dir)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want %q in it", c.name, err, c.want)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "upgrade-*")); len(left) > 0 {
			t.Errorf("%s: %q is left", c.name, left)
		}
	}
}

// Another version is tried on the configuration as a whole: it may not read the changes that this one stores.
func TestAnotherVersionIsTriedOnTheWholeConfiguration(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	var documents []*delta.Document
	var bodies [][]byte
	for revision := range 2 {
		bodies = append(bodies, fmt.Appendf(nil, `{"revision":%d,"services":{},"clientMap":{}}`, revision+1))
		document, err := delta.Read(bodies[revision])
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, document)
	}
	packed, err := store.Pack(bodies[0])
	if err != nil {
		t.Fatal(err)
	}
	history := store.History{Current: &store.Config{Revision: 1, ETag: "one", Body: packed}}
	if err := db.Commit(time.Now(), nil, history, nil); err != nil {
		t.Fatal(err)
	}
	d := delta.Between(documents[0], documents[1])
	d.Base, d.ETag = "one", "two"
	change := store.Change{BaseRevision: 1, Base: "one", Revision: 2, ETag: "two", Delta: d.Append(nil)}
	if err := db.Change(time.Now(), nil, change, nil); err != nil {
		t.Fatal(err)
	}

	tried := t.TempDir()
	path := filepath.Join(t.TempDir(), "node-agent")
	if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\ncp \"$3\"/node.db %s\n", tried), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tryProgram(t.Context(), path, time.Minute, db, dir); err != nil {
		t.Fatal(err)
	}
	seen, err := store.Open(tried)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seen.Close() })
	for name, c := range map[string]struct {
		db       *store.Store
		revision int64
		changes  int
	}{"the other version has": {seen, 2, 0}, "this version has": {db, 1, 1}} {
		h, err := c.db.History()
		if err != nil {
			t.Fatal(err)
		}
		if h.Current == nil || h.Current.Revision != c.revision || len(h.Changes) != c.changes {
			t.Errorf("%s configuration %+v with %d changes, want revision %d with %d", name, h.Current, len(h.Changes), c.revision, c.changes)
		}
	}
}

// A daemon that was killed leaves files that it did not write to their end, and copies of the state. The next
// one removes these, and nothing else.
func TestLeftoversAreFound(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for _, name := range []string{"upgrade-1", ".elements12", ".parsed3", "elements", "parsed", "node.db", ".parsedness"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(name, "123") {
			want = append(want, path)
		}
	}
	have := leftovers(dir)
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("found %q, want %q", have, want)
	}
}
