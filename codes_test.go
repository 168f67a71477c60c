package nodeagent

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// literals returns the basic literals of a file's declarations whose names begin with prefix:
// the values of constants, and of the keys and values of maps.
func literals(t *testing.T, path, prefix string, kind token.Token) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, is := node.(*ast.ValueSpec)
		if !is || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		for _, value := range spec.Values {
			ast.Inspect(value, func(node ast.Node) bool {
				if literal, is := node.(*ast.BasicLit); is && literal.Kind == kind {
					all = append(all, literal.Value)
				}
				return true
			})
		}
		return true
	})
	if len(all) == 0 {
		t.Fatalf("%s has no literal of %s", path, prefix)
	}
	return all
}

// Each code of POST /node/error has a row in the table of operating.md and stands in
// protocol.md, and each exit code of node-agent has a row.
func TestCodesAreDocumented(t *testing.T) {
	read := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	operating, protocol := read("docs/operating.md"), read("docs/protocol.md")
	for _, literal := range literals(t, "coreclient/wire/routes.go", "Code", token.STRING) {
		code, err := strconv.Unquote(literal)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(operating, "\n| `"+code+"` |") {
			t.Errorf("docs/operating.md has no row for the error code %s", code)
		}
		if !strings.Contains(protocol, "`"+code+"`") {
			t.Errorf("docs/protocol.md does not name the error code %s", code)
		}
	}
	exits := append(literals(t, "cmd/node-agent/main.go", "exit", token.INT), literals(t, "cmd/node-agent/main.go", "problemExits", token.INT)...)
	for _, code := range append(exits, "0") {
		if !strings.Contains(operating, "\n| "+code+" | ") {
			t.Errorf("docs/operating.md has no row for the exit code %s", code)
		}
	}
}
