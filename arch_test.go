// Package nodeagent has no code of its own; this test holds the architecture.
package nodeagent

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// room is one package of this module.
type room struct {
	// floor orders the packages: an import leads to a lower floor.
	floor int
	// imports are the packages of this module that it imports; tests may import any.
	imports []string
}

// rooms names every package. A package that is missing here, and an import that is not
// listed or no longer needed, fail the test.
var rooms = map[string]room{
	"internal/cli":          {0, nil},
	"internal/counters":     {0, nil},
	"internal/descriptors":  {0, nil},
	"internal/filewatch":    {0, nil},
	"internal/hostfile":     {0, nil},
	"internal/journal":      {0, nil},
	"internal/logkey":       {0, nil},
	"internal/namespace":    {0, nil},
	"internal/postgrestest": {0, nil},
	"internal/occupancy":    {0, nil},
	"internal/ownpages":     {0, nil},
	"internal/pulse":        {0, nil},
	"internal/refusal":      {0, nil},
	"internal/scripttest":   {0, nil},
	"internal/secret":       {0, nil},
	"internal/suggest":      {0, nil},
	"internal/otherclients": {0, nil},
	"internal/telegram":     {0, nil},
	"internal/testfiles":    {0, nil},
	"internal/varint":       {0, nil},
	"internal/wait":         {0, nil},
	"internal/grant":        {1, []string{"internal/counters"}},
	"internal/supervise":    {1, []string{"internal/wait"}},
	"internal/telemtdouble": {1, []string{"internal/telegram"}},
	"internal/fault":        {2, []string{"coreclient/wire"}},

	"packaging":             {0, nil},
	"store/salvage":         {0, nil},
	"coreclient/wire":       {1, []string{"internal/secret"}},
	"coreclient/wire/delta": {0, nil},
	"coreapi":               {2, []string{"coreclient/wire", "internal/secret"}},
	"coreclient":            {2, []string{"coreclient/wire", "coreclient/wire/delta", "internal/logkey", "internal/secret"}},
	"store":                 {2, []string{"coreclient/wire", "internal/secret", "store/salvage"}},
	"internal/release":      {0, nil},

	"xray/rawjson":  {0, nil},
	"xray/versions": {0, nil},
	"xray/state":    {3, []string{"internal/fault", "internal/grant", "xray/rawjson"}},
	"xray/ipc":      {4, []string{"internal/fault", "internal/grant", "internal/varint", "xray/state"}},
	"xray/parse":    {4, []string{"internal/fault", "internal/grant", "internal/suggest", "xray/rawjson", "xray/state"}},
	"xray/members":  {4, []string{"internal/fault", "internal/suggest", "xray/state"}},
	"xray/trust":    {4, []string{"xray/state"}},
	"xray/check":    {5, []string{"internal/fault", "internal/hostfile", "xray/members", "xray/parse", "xray/rawjson", "xray/state", "xray/trust"}},
	"xray/xraytest": {5, []string{"xray/parse", "xray/state"}},
	"xray/borrowed": {4, []string{"xray/state"}},
	"xray":          {6, []string{"coreclient/wire", "internal/fault", "internal/hostfile", "internal/logkey", "internal/supervise", "xray/borrowed", "xray/check", "xray/ipc", "xray/state"}},

	"xray/worker/datagrams":             {2, []string{"xray/worker/relay"}},
	"xray/worker/guard":                 {3, []string{"xray/worker/datagrams"}},
	"xray/worker/heap":                  {0, nil},
	"xray/worker/life":                  {0, nil},
	"xray/worker/inbound/wireguard":     {3, []string{"xray/worker/datagrams"}},
	"xray/worker/outbound/wireguard":    {1, []string{"xray/worker/reach"}},
	"xray/worker/transport/hysteria":    {3, []string{"xray/worker/transport/listen"}},
	"xray/worker/reach":                 {0, nil},
	"xray/worker/confine":               {0, nil},
	"xray/worker/outbound/freedom":      {3, []string{"xray/worker/datagrams", "xray/worker/reach"}},
	"xray/worker/transport/listen":      {2, []string{"xray/worker/relay"}},
	"xray/worker/reads":                 {0, nil},
	"xray/worker/relay":                 {1, []string{"internal/occupancy"}},
	"xray/worker/transport/mkcp":        {3, []string{"xray/worker/relay", "xray/worker/transport/listen"}},
	"xray/worker/transport/proxymask":   {0, nil},
	"xray/worker/inbound/shadowsocks":   {0, nil},
	"xray/worker/inbound/hysteria":      {4, []string{"xray/worker/transport/hysteria"}},
	"xray/worker/transport/grpc":        {3, []string{"xray/worker/transport/listen"}},
	"xray/worker/transport/httpupgrade": {3, []string{"xray/worker/transport/listen"}},
	"xray/worker/transport/raw":         {3, []string{"xray/worker/transport/listen"}},
	"xray/worker/transport/websocket":   {3, []string{"xray/worker/transport/listen"}},
	"xray/worker/transport/xhttp":       {3, []string{"xray/worker/relay", "xray/worker/transport/listen"}},
	"xray/worker/membertable":           {5, []string{"xray/members"}},
	"xray/worker/unixsocket":            {4, []string{"internal/fault", "xray/state", "xray/worker/transport/listen"}},
	"xray/worker/traffic":               {5, []string{"internal/counters", "internal/grant", "internal/occupancy", "xray/ipc", "xray/state", "xray/worker/inbound/shadowsocks", "xray/worker/inbound/wireguard", "xray/worker/life", "xray/worker/outbound/freedom", "xray/worker/reach", "xray/worker/reads"}},
	"xray/worker/transport":             {5, []string{"xray/state", "xray/trust", "xray/worker/datagrams", "xray/worker/life", "xray/worker/transport/grpc", "xray/worker/transport/httpupgrade", "xray/worker/transport/hysteria", "xray/worker/transport/mkcp", "xray/worker/transport/proxymask", "xray/worker/transport/raw", "xray/worker/transport/websocket", "xray/worker/transport/xhttp"}},
	"xray/worker/certfiles":             {6, []string{"internal/filewatch", "xray/check", "xray/ipc"}},
	"xray/worker/features":              {6, []string{"internal/counters", "internal/fault", "xray/worker/traffic"}},
	"xray/worker/inbound/socks":         {6, []string{"xray/state", "xray/worker/relay", "xray/worker/traffic"}},
	"xray/worker":                       {7, []string{"internal/counters", "internal/descriptors", "internal/fault", "internal/filewatch", "internal/occupancy", "internal/ownpages", "xray/ipc", "xray/members", "xray/state", "xray/worker/certfiles", "xray/worker/confine", "xray/worker/features", "xray/worker/guard", "xray/worker/heap", "xray/worker/inbound/hysteria", "xray/worker/inbound/shadowsocks", "xray/worker/inbound/socks", "xray/worker/inbound/wireguard", "xray/worker/life", "xray/worker/outbound/wireguard", "xray/worker/reach", "xray/worker/relay", "xray/worker/traffic", "xray/worker/transport", "xray/worker/transport/hysteria", "xray/worker/transport/listen", "xray/worker/transport/mkcp", "xray/worker/transport/xhttp", "xray/worker/unixsocket"}},

	"telemt/api":     {0, nil},
	"telemt/service": {3, []string{"internal/fault", "internal/grant"}},
	"telemt/process": {4, []string{"internal/logkey", "internal/supervise", "telemt/api", "telemt/service"}},
	"telemt":         {5, []string{"internal/filewatch", "internal/grant", "internal/logkey", "internal/supervise", "telemt/api", "telemt/process", "telemt/service"}},
	"telemt/install": {5, []string{"telemt/process"}},

	"agent/delivery": {3, []string{"coreclient", "coreclient/wire", "internal/logkey", "internal/wait", "store"}},
	"agent/identity": {3, []string{"coreclient", "coreclient/wire", "internal/logkey", "internal/secret", "store"}},
	"agent":          {7, []string{"agent/delivery", "agent/identity", "coreclient", "coreclient/wire", "coreclient/wire/delta", "internal/fault", "internal/grant", "internal/logkey", "internal/pulse", "internal/secret", "internal/supervise", "internal/varint", "internal/wait", "store", "telemt", "telemt/service", "xray", "xray/ipc", "xray/parse", "xray/state"}},

	"cmd/node-core/internal/hub":             {0, nil},
	"cmd/node-core/internal/problem":         {0, nil},
	"cmd/node-core/internal/certs":           {1, []string{"internal/filewatch", "internal/hostfile", "internal/logkey"}},
	"cmd/node-core/internal/corestore/pgsql": {0, nil},
	"cmd/node-core/internal/periods":         {0, nil},
	"cmd/node-core/internal/corestore":       {3, []string{"cmd/node-core/internal/corestore/pgsql", "cmd/node-core/internal/periods", "coreapi", "coreclient/wire", "internal/wait"}},
	"cmd/node-core/internal/webhook":         {4, []string{"cmd/node-core/internal/corestore", "coreapi", "internal/logkey", "internal/secret", "internal/wait"}},
	"cmd/node-core/internal/share":           {1, nil},
	"cmd/node-core/internal/importer":        {3, []string{"coreapi"}},
	"cmd/node-core/internal/nodeconfig":      {4, []string{"cmd/node-core/internal/corestore", "cmd/node-core/internal/share", "coreapi", "coreclient/wire", "coreclient/wire/delta", "xray/state", "xray/versions"}},
	"cmd/node-core/internal/gaps":            {5, []string{"cmd/node-core/internal/corestore", "cmd/node-core/internal/nodeconfig"}},
	"cmd/node-core/internal/nodecheck":       {6, []string{"coreclient/wire", "internal/fault", "telemt/service", "xray/check", "xray/members", "xray/parse", "xray/state", "xray/versions"}},
	"cmd/node-core/internal/adminapi":        {7, []string{"cmd/node-core/internal/clientapps", "cmd/node-core/internal/corestore", "cmd/node-core/internal/gaps", "cmd/node-core/internal/hub", "cmd/node-core/internal/nodecheck", "cmd/node-core/internal/nodeconfig", "coreapi", "coreclient/wire", "internal/fault", "internal/logkey", "internal/secret", "telemt/service", "xray/versions"}},
	"cmd/node-core/internal/clientapps":      {5, []string{"cmd/node-core/internal/nodeconfig", "cmd/node-core/internal/share", "coreapi"}},
	"cmd/node-core/internal/sublink":         {6, []string{"cmd/node-core/internal/clientapps", "cmd/node-core/internal/corestore", "cmd/node-core/internal/gaps", "cmd/node-core/internal/nodeconfig", "cmd/node-core/internal/share", "coreapi", "internal/logkey"}},
	"cmd/node-core/internal/rendered":        {5, []string{"cmd/node-core/internal/corestore", "cmd/node-core/internal/nodeconfig", "coreclient/wire/delta"}},
	"cmd/node-core/internal/nodeapi":         {6, []string{"cmd/node-core/internal/corestore", "cmd/node-core/internal/hub", "cmd/node-core/internal/nodeconfig", "cmd/node-core/internal/problem", "cmd/node-core/internal/rendered", "coreclient/wire", "coreclient/wire/delta", "internal/logkey"}},
	"cmd/node-core":                          {8, []string{"cmd/node-core/internal/adminapi", "cmd/node-core/internal/certs", "cmd/node-core/internal/corestore", "cmd/node-core/internal/hub", "cmd/node-core/internal/importer", "cmd/node-core/internal/nodeapi", "cmd/node-core/internal/problem", "cmd/node-core/internal/sublink", "cmd/node-core/internal/webhook", "coreapi", "coreclient/wire", "internal/cli", "internal/journal", "internal/logkey", "internal/secret", "internal/wait"}},

	"cmd/node-agent": {8, []string{"agent", "agent/identity", "coreclient", "coreclient/wire", "internal/cli", "internal/counters", "internal/journal", "internal/logkey", "internal/ownpages", "internal/secret", "internal/supervise", "store", "telemt", "telemt/install", "telemt/process", "xray", "xray/ipc", "xray/worker", "xray/worker/heap"}},

	"internal/e2e":  {0, nil},
	"internal/demo": {1, []string{"internal/e2e", "internal/telegram"}},
}

const module = "nodeagent/"

// mayImportXray reports whether the package in dir may import xray-core.
func mayImportXray(dir string) bool {
	return dir == "xray/worker" || strings.HasPrefix(dir, "xray/worker/")
}

// importsOf returns what the Go files of this module import, tests aside, by folder.
func importsOf(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if all[dir] == nil {
			all[dir] = map[string]bool{}
		}
		for _, spec := range file.Imports {
			all[dir][strings.Trim(spec.Path.Value, `"`)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no files were looked at")
	}
	return all
}

func TestImportsGoOneWay(t *testing.T) {
	all := importsOf(t)
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		room, known := rooms[dir]
		if !known {
			t.Errorf("package %s is not listed in this test: give it a floor and its imports", dir)
			continue
		}
		var ours []string
		for imported := range all[dir] {
			if strings.HasPrefix(imported, "github.com/xtls/xray-core") && !mayImportXray(dir) {
				t.Errorf("%s imports %s: only xray/worker and its packages embed xray-core", dir, imported)
			}
			if inner, is := strings.CutPrefix(imported, module); is {
				ours = append(ours, inner)
				if rooms[inner].floor >= room.floor {
					t.Errorf("%s (floor %d) imports %s (floor %d): an import leads to a lower floor", dir, room.floor, inner, rooms[inner].floor)
				}
			}
		}
		slices.Sort(ours)
		if !slices.Equal(ours, room.imports) {
			t.Errorf("%s imports\n\t%q, this test lists\n\t%q", dir, ours, room.imports)
		}
	}
	for dir := range rooms {
		if all[dir] == nil {
			t.Errorf("this test lists package %s, which does not exist", dir)
		}
	}
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
