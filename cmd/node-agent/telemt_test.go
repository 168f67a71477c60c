package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTelemtTarget(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"a", "b", "opt"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("a/telemt"), nil, 0o644); err != nil { // it can't be run
		t.Fatal(err)
	}
	if err := os.WriteFile(at("opt/telemt-1"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../opt/telemt-1", at("b/telemt")); err != nil {
		t.Fatal(err)
	}
	path := at("a") + ":" + at("b")
	for binary, want := range map[string]string{
		"telemt": at("opt/telemt-1"), "other": "/usr/local/bin/other", at("new/telemt"): at("new/telemt"), at("b/telemt"): at("opt/telemt-1"),
	} {
		if got, err := telemtTarget(binary, path); err != nil || got != want {
			t.Errorf("telemt.binary %q leads to %q (%v), want %q", binary, got, err, want)
		}
	}
}
