package certs

import (
	"os"
	"path/filepath"
	"testing"
)

// The pair is made once and read afterwards. Where a crash left only the key, a new pair is
// made; the new key is another file, so that a crash never leaves a part of one. No file but
// the two stays in the folder, and only the owner can read the key.
func TestLoadOrCreate(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, keyName), []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(t.TempDir(), "before")
	if err := os.Link(filepath.Join(dir, keyName), before); err != nil {
		t.Fatal(err)
	}
	_, pin, err := LoadOrCreate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := LoadOrCreate(dir); err != nil || again != pin {
		t.Errorf("the second start has pin %s, want %s (%v)", again, pin, err)
	}
	if text, err := os.ReadFile(before); err != nil || string(text) != "half a key" {
		t.Errorf("the new key was written into the file before it (%v)", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("the folder has %v, want the certificate and the key (%v)", files, err)
	}
	info, err := os.Stat(filepath.Join(dir, keyName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %o, want 600", info.Mode().Perm())
	}
}
