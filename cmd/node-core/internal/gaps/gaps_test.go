package gaps

import (
	"strings"
	"testing"
)

// A text has a gap at each form of the credentials, and its size has all that it keeps in memory.
func TestCut(t *testing.T) {
	one, other, third := Credentials{"one", "one-long"}, Credentials{"two", "two-long"}, Credentials{"3", "4"}
	text := append(make([]byte, 0, 1<<20), "a one, one-long and one"...)
	cut, alike := Cut(text, one, []byte("a two, two-long and two"), other)
	if got := string(cut.Append(nil, third)); !alike || got != "a 3, 4 and 3" {
		t.Errorf("filled in: %q; alike: %t", got, alike)
	}
	if cut.Size() < cap(text) {
		t.Errorf("the size is %d, with %d bytes kept", cut.Size(), cap(text))
	}
	if _, alike := Cut([]byte("one"), one, []byte(strings.Repeat("two", 2)), other); alike {
		t.Error("texts that differ by more than the gaps are alike")
	}
}
