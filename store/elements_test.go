package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// elementsIn opens a store in a new folder.
func elementsIn(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, filepath.Join(dir, elementsFile)
}

// setElements keeps hashes until the test ends.
func setElements(t *testing.T, s *Store, head, data string) *Elements {
	t.Helper()
	e, err := s.SetElements([]byte(head), func(to io.Writer) error {
		_, err := io.WriteString(to, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// wantElements compares hashes, which the test may close then, with "head: data".
func wantElements(t *testing.T, e *Elements, want string) {
	t.Helper()
	if e == nil {
		t.Errorf("there is nothing, want %q", want)
		return
	}
	data := make([]byte, e.Size())
	if _, err := e.ReadAt(data, 0); err != nil {
		t.Error(err)
	}
	if got := string(e.Head) + ": " + string(data); got != want {
		t.Errorf("there is %q, want %q", got, want)
	}
}

// The hashes of a configuration come back as they were kept. An open file reads on after another one has
// taken its place, and a failure keeps the one that is there.
func TestElements(t *testing.T) {
	s, path := elementsIn(t)
	if s.Elements() != nil {
		t.Error("there is something before it was kept")
	}
	kept := func(want string) {
		t.Helper()
		e := s.Elements()
		wantElements(t, e, want)
		_ = e.Close()
	}
	first := setElements(t, s, "head", "some data")
	wantElements(t, first, "head: some data")
	kept("head: some data")
	setElements(t, s, "other", "data")
	wantElements(t, first, "head: some data")
	failure := errors.New("no hashes")
	if _, err := s.SetElements(nil, func(io.Writer) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("the error is %v, want %v", err, failure)
	}
	kept("other: data")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the file has the mode %s", info.Mode())
	}
}

// Hashes of which a byte is damaged or missing do not come back.
func TestDamagedElements(t *testing.T) {
	s, path := elementsIn(t)
	setElements(t, s, "other", "data")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		damaged := bytes.Clone(raw)
		damaged[n] ^= 1
		for what, text := range map[string][]byte{"damaged at": damaged, "cut at": raw[:n]} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if e := s.Elements(); e != nil {
				t.Errorf("hashes come back from a file that is %s byte %d", what, n)
				_ = e.Close()
			}
		}
	}
}
