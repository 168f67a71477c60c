package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	xerrors "github.com/xtls/xray-core/common/errors"
	"github.com/xtls/xray-core/infra/conf"

	"nodeagent/xray/members"
	"nodeagent/xray/xraytest"
)

// Xray's tables are still where they are looked for, and have what they always had.
func TestXraysTables(t *testing.T) {
	for name, c := range map[string]struct {
		loader *conf.JSONConfigLoader
		has    string
	}{
		"inboundConfigLoader":  {inboundLoader, "vless"},
		"outboundConfigLoader": {outboundLoader, "freedom"},
		"strategyConfigLoader": {strategyLoader, "leastload"},
		"tcpmaskLoader":        {tcpMaskLoader, "fragment"},
		"udpmaskLoader":        {udpMaskLoader, "salamander"},
	} {
		if c.loader == nil {
			t.Errorf("xray-core's infra/conf has no %s any more", name)
			continue
		}
		if !slices.Contains(names(c.loader), c.has) {
			t.Errorf("%s has the names %q, want %q among them", name, names(c.loader), c.has)
		}
		if _, known := decodedInto(c.loader, c.has); !known {
			t.Errorf("%s decodes no %q", name, c.has)
		}
	}
}

// The members of types that nobody but Xray's own functions can name are copied; they are
// the same as in Xray's source.
func TestCopiedTypes(t *testing.T) {
	for _, c := range []struct {
		file   string // of xray-core, where the type is
		theirs string
		ours   reflect.Type
		more   []string // that we let pass beside
	}{
		{"infra/conf/router.go", "RawFieldRule", reflect.TypeFor[routingRule](), []string{"type", "domainMatcher"}},
	} {
		want := sourceMembers(t, filepath.Join(xraytest.Source(t), c.file), c.theirs)
		if len(want) == 0 {
			t.Errorf("%s has no type %s any more", c.file, c.theirs)
		}
		for _, field := range reflect.VisibleFields(reflect.TypeFor[conf.RouterRule]()) {
			want = append(want, tagName(string(field.Tag)))
		}
		want = append(want, c.more...)
		var have []string
		for name := range membersOf(c.ours) {
			have = append(have, name)
		}
		slices.Sort(want)
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("%s has the members\n\t%q, Xray's %s\n\t%q", c.ours, have, c.theirs, want)
		}
	}
}

// sourceMembers are the JSON names in a struct type of a Go file, embedded ones left out.
func sourceMembers(t *testing.T, path, name string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.TypeSpec)
		if !is || spec.Name.Name != name {
			return true
		}
		for _, field := range spec.Type.(*ast.StructType).Fields.List {
			if field.Tag != nil {
				found = append(found, tagName(strings.Trim(field.Tag.Value, "`")))
			}
		}
		return false
	})
	return found
}

func tagName(tag string) string {
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name
}

// The embedded table is the table of the embedded xray-core.
func TestTableIsCurrent(t *testing.T) {
	want, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join("..", "..", "members", members.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("xray/members/xray.json is not the table of this xray-core: make it again with 'go generate ./xray/members', and look at the difference")
	}
}

// A removed member is reported with Xray's words.
func TestRemovedInXraysWords(t *testing.T) {
	for name, instead := range map[string]string{"a": `"b"`, "c": ""} {
		_, want, _ := strings.Cut(xerrors.PrintRemovedFeatureError(fmt.Sprintf("%q", name), instead).Error(), "The feature")
		if have := members.RemovedText(name, instead); have != "The feature"+want {
			t.Errorf("it says %q, Xray %q", have, "The feature"+want)
		}
	}
}
