package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The parsed form comes back to the build that has made it, with its key, which is another one for
// another document, and not if it is damaged.
func TestParsed(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := ParsedKeyOf("one", Packed("body"))
	parsed := func(key ParsedKey) (found []byte) {
		ReadParsed(dir, "one", func(of ParsedKey, data []byte) {
			if of == key {
				found = bytes.Clone(data)
			}
		})
		return found
	}
	if parsed(key) != nil {
		t.Error("there is something before it was kept")
	}
	if err := s.SetParsed(key, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if got := parsed(key); string(got) != "data" {
		t.Errorf("it came back as %q", got)
	}
	if ReadParsed(dir, "two", func(_ ParsedKey, data []byte) { t.Errorf("another build gets %q", data) }) {
		t.Error("another build gets something")
	}
	if ReadParsed(dir, "one", func(ParsedKey, []byte) { panic("a test wants it") }) {
		t.Error("it was read after a panic")
	}
	for _, other := range []ParsedKey{ParsedKeyOf("two", Packed("body")), ParsedKeyOf("one", Packed("bod")), {}} {
		if parsed(other) != nil {
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
			if got := parsed(key); got != nil {
				t.Fatalf("byte %d is damaged, and it came back as %q", n, got)
			}
		}
	}
}

// What was given back is read again.
func TestFreeMapped(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	body, err := Pack([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(time.Now(), nil, History{Current: &Config{Revision: 7, Body: body}}, nil); err != nil {
		t.Fatal(err)
	}
	s.FreeMapped()
	h, err := s.History()
	if err != nil || h.Current == nil || h.Current.Revision != 7 {
		t.Errorf("the history is %+v, %v", h, err)
	}
}

// The files that a process did not write to their end are found, under the names that they have meanwhile.
func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for _, name := range []string{parsedFile, elementsFile} {
		file, err := newPending(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Cleanup() //nolint:errcheck // the folder goes with the test
		want = append(want, file.Name())
	}
	if have := Unfinished(dir); !slices.Equal(have, want) {
		t.Errorf("found %q, want %q", have, want)
	}
}
