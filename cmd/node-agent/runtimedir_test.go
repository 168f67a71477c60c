package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A runtime folder into which others can write is not used.
func TestRuntimeFolderOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	for _, c := range []struct {
		mode  os.FileMode
		owner int
		says  string
	}{
		{0o700, os.Geteuid(), ""},
		{0o755, os.Geteuid(), ""},
		{0o777, os.Geteuid(), "mode 0777"},
		{0o1777, os.Geteuid(), "mode 0777"},
		{0o770, os.Geteuid(), "mode 0770"},
		{0o700, 65534, "belongs to the user 65534"},
	} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if c.owner != os.Geteuid() {
			if os.Geteuid() != 0 {
				t.Log("NOT RUN: to give a folder to another user needs root")
				continue
			}
			if err := os.Chown(dir, c.owner, -1); err != nil {
				t.Fatal(err)
			}
		}
		unlock, err := lockRuntimeDir(dir)
		if err == nil {
			unlock()
		}
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("mode %o of user %d: %v", c.mode, c.owner, err)
		}
	}
}
