// Package nodeagent has no code of its own; this test holds the architecture.
package nodeagent

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// allowed says what each room may import of this module, by prefix. What a room
// may import, the rooms below it may too; tests may import what they like.
var allowed = map[string][]string{
	"coreclient/wire":        {"internal/secret"},
	"coreclient":             {"coreclient/wire", "internal/logkey", "internal/secret"},
	"internal":               {"internal"},
	"xray":                   {"internal/supervise"},
	"xray/worker":            {"xray", "xray/worker/transport", "xray/worker/wireguard", "internal/counters"},
	"telemt":                 {"internal/supervise"},
	"store":                  {"coreclient/wire", "internal/secret"},
	"agent":                  {"agent/delivery", "coreclient", "coreclient/wire", "internal/logkey", "internal/secret", "internal/wait", "store", "xray", "telemt"},
	"agent/delivery":         {"coreclient", "coreclient/wire", "internal/logkey", "internal/wait", "store"},
	"cmd/node-agent":         {"agent", "coreclient", "coreclient/wire", "store", "xray", "xray/worker", "telemt", "internal"},
	"cmd/node-core":          {"cmd/node-core/internal", "coreclient/wire"},
	"packaging":              {},
	"internal/e2e":           {},
	"internal/demo":          {"internal/e2e", "internal/telegram"},
	"internal/counters":      {},
	"internal/logkey":        {},
	"internal/secret":        {},
	"internal/supervise":     {},
	"internal/wait":          {},
	"cmd/node-core/internal": {"cmd/node-core/internal", "coreclient/wire", "internal/secret"},
}

const module = "nodeagent/"

// room is the longest known folder that holds the file.
func room(file string) string {
	for dir := filepath.Dir(file); dir != "."; dir = filepath.Dir(dir) {
		if _, known := allowed[dir]; known {
			return dir
		}
	}
	return ""
}

func TestImportsGoOneWay(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		in := room(path)
		if in == "" {
			t.Errorf("%s is in no known room; name its folder in this test", path)
			return nil
		}
		for _, spec := range file.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if strings.HasPrefix(imported, "github.com/xtls/xray-core") && in != "xray/worker" {
				t.Errorf("%s imports %s; xray/worker alone embeds xray-core", path, imported)
			}
			if inner, ours := strings.CutPrefix(imported, module); ours && !mayImport(in, inner) {
				t.Errorf("%s imports %s, which %s may not", path, imported, in)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no files were looked at")
	}
}

func mayImport(in, imported string) bool {
	if imported == in {
		return true
	}
	for _, prefix := range allowed[in] {
		if imported == prefix || prefix == "internal" && strings.HasPrefix(imported, "internal/") ||
			prefix == "cmd/node-core/internal" && strings.HasPrefix(imported, prefix) {
			return true
		}
	}
	return false
}

// Every package says what it is for.
func TestEveryPackageHasADoc(t *testing.T) {
	docs := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		docs[filepath.Dir(path)] = docs[filepath.Dir(path)] || file.Doc != nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, has := range docs {
		if !has {
			t.Errorf("package in %s has no doc comment", dir)
		}
	}
}
