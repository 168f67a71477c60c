package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The hashes of a configuration come back as they were kept, and not if a byte of them is damaged.
// An open file reads on after another one has taken its place.
func TestElements(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Elements() != nil {
		t.Error("there is something before it was kept")
	}
	set := func(head, data string) *Elements {
		e, err := s.SetElements([]byte(head), func(to io.Writer) error {
			_, err := io.WriteString(to, data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	read := func(e *Elements) string {
		if e == nil {
			return "nothing"
		}
		data := make([]byte, e.Size())
		if _, err := e.ReadAt(data, 0); err != nil {
			t.Error(err)
		}
		return string(e.Head) + ": " + string(data)
	}
	first := set("head", "some data")
	defer first.Close()
	if got := read(first); got != "head: some data" {
		t.Errorf("it is %q", got)
	}
	again := s.Elements()
	if got := read(again); got != "head: some data" {
		t.Errorf("it came back as %q", got)
	}
	_ = again.Close()
	_ = set("other", "data").Close()
	if got := read(first); got != "head: some data" {
		t.Errorf("it is %q after another one was kept", got)
	}
	failure := errors.New("no hashes")
	if _, err := s.SetElements(nil, func(io.Writer) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("the error is %v, want %v", err, failure)
	}
	again = s.Elements()
	if got := read(again); got != "other: data" {
		t.Errorf("after a failure it came back as %q", got)
	}
	_ = again.Close()
	path := filepath.Join(dir, elementsFile)
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
		damaged := bytes.Clone(raw)
		damaged[n] ^= 1
		for _, text := range [][]byte{damaged, raw[:n]} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if e := s.Elements(); e != nil {
				t.Errorf("it came back as %q although it is damaged at byte %d", read(e), n)
			}
		}
	}
}
