package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
)

// documentBlock is a block of code in a document.
type documentBlock struct {
	key    string // the document and the first line of the block, without a comment at its end
	text   string
	notRun string // why no test runs it; empty where a test has to
}

var (
	notRunMark  = regexp.MustCompile(`^<!-- not run: (.+) -->\s*$`)
	namedTest   = regexp.MustCompile(`\bTest\w+`)
	lineComment = regexp.MustCompile(`\s{2,}#.*$`)
)

// documentBlocks returns the blocks of code in the README and in docs/, in the order of the documents.
func documentBlocks(t *testing.T) []documentBlock {
	t.Helper()
	root, err := moduleRoot(t.Context())
	must(t, err)
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	must(t, err)
	var all []documentBlock
	for _, document := range append([]string{filepath.Join(root, "README.md")}, documents...) {
		source, err := os.ReadFile(document)
		must(t, err)
		name, err := filepath.Rel(root, document)
		must(t, err)
		must(t, ast.Walk(goldmark.DefaultParser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
			if kind := node.Kind(); !entering || kind != ast.KindCodeBlock && kind != ast.KindFencedCodeBlock {
				return ast.WalkContinue, nil
			}
			b := documentBlock{text: string(node.Lines().Value(source))}
			first, _, _ := strings.Cut(b.text, "\n")
			b.key = name + ": " + lineComment.ReplaceAllString(first, "")
			if before := node.PreviousSibling(); before != nil && before.Kind() == ast.KindHTMLBlock {
				if mark := notRunMark.FindStringSubmatch(string(before.Lines().Value(source))); mark != nil {
					b.notRun = mark[1]
				}
			}
			all = append(all, b)
			return ast.WalkContinue, nil
		}))
	}
	return all
}

// Every block of code in the README and in docs/ is run by a test, or has a comment before it that
// says why not. A test that such a comment names exists.
func TestEveryDocumentedCommandIsRun(t *testing.T) {
	var run []string
	for _, b := range documentBlocks(t) {
		if b.notRun == "" {
			run = append(run, b.key)
		}
		for _, name := range namedTest.FindAllString(b.notRun, -1) {
			if !testExists(t, name) {
				t.Errorf("%s: the mark names %s, which does not exist", b.key, name)
			}
		}
	}
	known := slices.Concat(commandsOfBuilds, commandsOfMachine)
	slices.Sort(known)
	slices.Sort(run)
	for _, key := range run {
		if _, found := slices.BinarySearch(known, key); !found {
			t.Errorf("no test runs the block\n\t%s\nlet TestDocumentedCommands or TestDocumentedBuilds run it, or write above it why it is not run: <!-- not run: REASON -->", key)
		}
	}
	for _, key := range known {
		if _, found := slices.BinarySearch(run, key); !found {
			t.Errorf("a test runs the block\n\t%s\nwhich no document has", key)
		}
	}
}

// testExists tells whether a test of this repository has a name.
func testExists(t *testing.T, name string) bool {
	t.Helper()
	root, err := moduleRoot(t.Context())
	must(t, err)
	found := false
	must(t, filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") && !entry.IsDir() {
			var source []byte
			source, err = os.ReadFile(path)
			found = found || strings.Contains(string(source), "\nfunc "+name+"(t *testing.T)")
		}
		return err
	}))
	return found
}

// walk runs blocks of documents. Words in capital letters, and names of examples, are replaced by
// what a reader would write there.
type walk struct {
	t      *testing.T
	blocks map[string]documentBlock
	shell  func(script string) string // as root; it ends the test where the script fails
	words  map[string]string
	ran    []string
}

func newWalk(t *testing.T, shell func(script string) string) *walk {
	t.Helper()
	w := &walk{t: t, blocks: map[string]documentBlock{}, shell: shell, words: map[string]string{}}
	for _, b := range documentBlocks(t) {
		if b.notRun != "" {
			continue
		}
		if _, twice := w.blocks[b.key]; twice {
			t.Errorf("two blocks begin with %s", b.key)
		}
		w.blocks[b.key] = b
	}
	return w
}

// step runs the block with a key, and returns what it printed.
func (w *walk) step(key string) string {
	w.t.Helper()
	b, exists := w.blocks[key]
	if !exists {
		w.t.Fatalf("no document has the block %s, or it is not to be run", key)
	}
	var pairs []string
	for from, to := range w.words {
		pairs = append(pairs, from, to)
	}
	w.ran = append(w.ran, key)
	return w.shell(strings.NewReplacer(pairs...).Replace(b.text))
}

// all ends the test where the walk did not run all blocks of a list.
func (w *walk) all(keys []string) {
	w.t.Helper()
	for _, key := range keys {
		if !slices.Contains(w.ran, key) {
			w.t.Errorf("the test did not run the block %s", key)
		}
	}
	if len(w.ran) != len(keys) {
		w.t.Errorf("the test ran %d blocks, want %d", len(w.ran), len(keys))
	}
}
