package nodeagent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// checkedDocuments are the documents that name files, packages, functions and commands of this
// repository. What they name has to exist.
var checkedDocuments = []string{"docs/architecture.md", "docs/glossary.md", "docs/install.md", "docs/protocols.md", "CONTRIBUTING.md"}

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan  = regexp.MustCompile("`([^`\n]+)`")
	// namesOnly is a cell of a table that has code spans and commas alone.
	namesOnly  = regexp.MustCompile("^`[^`]+`(, `[^`]+`)*$")
	linkTarget = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	// filePath is a file by its extension, or a path of several folders; it may have a "*".
	filePath    = regexp.MustCompile(`^[\w.*-]+(/[\w.*-]+)*\.(go|md|mod|yml|sql|service|conf|txtar)$|^[\w.*-]+(/[\w.*-]+)+/?$`)
	makeTarget  = regexp.MustCompile("(?m)(?:^    |`)make (\\w+)")
	fuzzCommand = regexp.MustCompile(`-fuzz (\w+) \./([\w/-]+)`)
	fuzzTest    = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
)

func readDocument(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// spansOf returns what stands between backticks in a text.
func spansOf(text string) []string {
	var spans []string
	for _, match := range codeSpan.FindAllStringSubmatch(text, -1) {
		spans = append(spans, match[1])
	}
	return spans
}

// rowsOf returns the cells of all rows of tables in a document.
func rowsOf(text string) [][]string {
	var rows [][]string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// Each path in backticks and each link leads to a file or folder. Paths start at the root of
// the repository, links at the folder of their document.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	for _, document := range checkedDocuments {
		text := codeBlock.ReplaceAllString(readDocument(t, document), "")
		seen := 0
		for _, span := range spansOf(text) {
			if !filePath.MatchString(span) {
				continue
			}
			seen++
			if found, err := filepath.Glob(strings.TrimSuffix(span, "/")); err != nil || len(found) == 0 {
				t.Errorf("%s names `%s`, which does not exist: correct the document", document, span)
			}
		}
		for _, match := range linkTarget.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), match[1])); err != nil {
				t.Errorf("%s has a link to %s, which does not exist: correct the document", document, match[1])
			}
		}
		if seen == 0 {
			t.Errorf("no path was found in %s", document)
		}
	}
}

// declaredIn returns the names that a Go file, or the Go files of a folder without its tests,
// declare: functions, methods, types, fields, constants and variables.
func declaredIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	files := []string{path}
	if !strings.HasSuffix(path, ".go") {
		files, _ = filepath.Glob(filepath.Join(path, "*.go")) // the pattern is valid
		files = slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	}
	names := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Error(err)
			continue
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = true
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			case *ast.Field:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					names[name.Name] = true
				}
			}
			return true
		})
	}
	return names
}

// In a table, a cell with one Go file or package can be followed by a cell with names: these
// are declared there. A name may have its type before it.
func TestDocumentsNameDeclarationsThatExist(t *testing.T) {
	for _, document := range checkedDocuments {
		for _, row := range rowsOf(readDocument(t, document)) {
			for i := range len(row) - 1 {
				place := strings.Trim(row[i], "`")
				_, isPackage := rooms[place]
				if "`"+place+"`" != row[i] || !isPackage && !strings.HasSuffix(place, ".go") || !namesOnly.MatchString(row[i+1]) {
					continue
				}
				pkg := place
				if !isPackage {
					pkg = filepath.Dir(place)
				}
				declared, ofPackage := declaredIn(t, place), declaredIn(t, pkg)
				for _, span := range spansOf(row[i+1]) {
					owner, name, hasOwner := strings.Cut(span, ".")
					if !hasOwner {
						name = span
					}
					if !declared[name] || hasOwner && !ofPackage[owner] {
						t.Errorf("%s says that %s declares `%s`, which it does not: correct the document", document, place, span)
					}
				}
			}
		}
	}
}

// The table in the chapter "Packages" of the architecture has every package.
func TestArchitectureHasEveryPackage(t *testing.T) {
	_, chapter, _ := strings.Cut(readDocument(t, "docs/architecture.md"), "\n## Packages\n")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	listed := map[string]bool{}
	for _, row := range rowsOf(chapter) {
		for _, dir := range spansOf(row[0]) {
			listed[dir] = true
			if _, known := rooms[dir]; !known {
				t.Errorf("docs/architecture.md lists package %s, which does not exist", dir)
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(rooms)) {
		if !listed[dir] {
			t.Errorf("the table of packages in docs/architecture.md lacks %s: say there what it does", dir)
		}
	}
}

// CONTRIBUTING.md names targets that the Makefile has, and every fuzz test with its package.
func TestContributingNamesCommandsThatExist(t *testing.T) {
	text, makefile := readDocument(t, "CONTRIBUTING.md"), readDocument(t, "Makefile")
	targets := makeTarget.FindAllStringSubmatch(text, -1)
	if len(targets) == 0 {
		t.Error("CONTRIBUTING.md names no target of make")
	}
	for _, target := range targets {
		if !strings.Contains(makefile, "\n"+target[1]+":") {
			t.Errorf("CONTRIBUTING.md names `make %s`, which the Makefile does not have", target[1])
		}
	}
	named := map[string]bool{}
	for _, command := range fuzzCommand.FindAllStringSubmatch(text, -1) {
		named[command[2]+"."+command[1]] = true
	}
	exist := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, match := range fuzzTest.FindAllStringSubmatch(readDocument(t, path), -1) {
			exist[filepath.Dir(path)+"."+match[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want, got := slices.Sorted(maps.Keys(exist)), slices.Sorted(maps.Keys(named)); !slices.Equal(want, got) {
		t.Errorf("CONTRIBUTING.md has commands for the fuzz tests\n\t%q, these exist:\n\t%q", got, want)
	}
}
