package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
