package delta

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The example of docs/protocol.md, whose digests and hashes another program made, is right: other Cores are
// tested with it.
func TestDocumentedExample(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(raw), "An example to test with.")
	lines := regexp.MustCompile(`(?m)^    (\S.*)$`).FindAllStringSubmatch(example, -1)
	if !found || len(lines) != 3 {
		t.Fatalf("the example has %d texts, want a document, a digest and a delta", len(lines))
	}
	base, err := Read([]byte(lines[0][1]))
	if err != nil || base.Digest().String() != lines[1][1] {
		t.Fatalf("the digest of the document is %s (%v)", base.Digest(), err)
	}
	d, err := Decode([]byte(lines[2][1]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(base, d); err != nil {
		t.Error(err)
	}
	hashes := map[string]bool{}
	if err := Walk([]byte(lines[0][1]), func(e Element) error {
		hashes["`"+e.Hash().String()+"` |"] = true
		return nil
	}); err != nil || len(hashes) != 7 {
		t.Errorf("the document has %d elements (%v), want seven", len(hashes), err)
	}
	rows := regexp.MustCompile("(?m)`[0-9a-f]{64}` \\|$").FindAllString(example, -1)
	if len(rows) != 2 || !hashes[rows[0]] || !hashes[rows[1]] {
		t.Errorf("the table has the hashes %v", rows)
	}
}
