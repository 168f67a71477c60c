package store

import (
	"os"
	"path/filepath"
	"testing"
)

// What was parsed comes back for the same document and build, and for no other, and not if it is damaged.
func TestParsed(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := ParsedKeyOf("one", Packed("body"))
	if s.Parsed(key) != nil {
		t.Error("there is something before it was kept")
	}
	if err := s.SetParsed(key, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got := s.Parsed(key); string(got) != "data" {
		t.Errorf("it came back as %q", got)
	}
	for _, other := range []ParsedKey{ParsedKeyOf("two", Packed("body")), ParsedKeyOf("one", Packed("bod")), {}} {
		if s.Parsed(other) != nil {
			t.Errorf("it came back under another key")
		}
	}
	path := filepath.Join(dir, parsedFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the file has the mode %s", info.Mode())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		damaged := append([]byte(nil), raw...)
		damaged[n] ^= 1
		for _, text := range [][]byte{damaged, raw[:n]} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := s.Parsed(key); got != nil {
				t.Fatalf("byte %d is damaged, and it came back as %q", n, got)
			}
		}
	}
}
