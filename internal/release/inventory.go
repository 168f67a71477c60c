package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// linked is a module whose code is in a program.
type linked struct {
	Path, Version string
	Sum           string // go.sum's h1: hash; empty for the standard library
	Dir           string // where its source is
}

func (m linked) purl() string { return "pkg:golang/" + m.Path + "@" + m.Version }

// inventory returns the licence texts of all modules that are linked into a binary, and a list of
// the modules in CycloneDX' format. A module without a licence text is an error.
func (o options) inventory(ctx context.Context, program, binary, dir string) ([]content, error) {
	modules, err := linkedModules(ctx, binary)
	if err != nil {
		return nil, err
	}
	doc := "/usr/share/doc/" + program
	all := []content{{Source: "LICENSE", Target: doc + "/copyright", Info: mode(0o644)}}
	for _, m := range modules {
		texts, err := licencesIn(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("find the licence of %s %s: %w", m.Path, m.Version, err)
		}
		for _, text := range texts {
			all = append(all, content{Source: text, Target: doc + "/licenses/" + m.Path + "/" + filepath.Base(text), Info: mode(0o644)})
		}
	}
	bom, err := o.bom(program, modules)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "sbom.cdx.json")
	if err := os.WriteFile(path, bom, 0o644); err != nil {
		return nil, fmt.Errorf("write the list of modules: %w", err)
	}
	return append(all, content{Source: path, Target: doc + "/sbom.cdx.json", Info: mode(0o644)}), nil
}

// linkedModules reads from a binary what it was linked from. The first one is Go's standard library.
func linkedModules(ctx context.Context, binary string) ([]linked, error) {
	built, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read what %s was built from: %w", binary, err)
	}
	goroot, err := command(ctx, nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	all := []linked{{Path: "std", Version: built.GoVersion, Dir: strings.TrimSpace(string(goroot))}}
	dirs, err := moduleDirs(ctx)
	if err != nil {
		return nil, err
	}
	for _, dep := range built.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		dir := dirs[dep.Path+"@"+dep.Version]
		if dir == "" {
			return nil, fmt.Errorf("the source of %s %s is not in the module cache; run 'go mod download'", dep.Path, dep.Version)
		}
		all = append(all, linked{dep.Path, dep.Version, dep.Sum, dir})
	}
	return all, nil
}

// moduleDirs returns the folders of this module's dependencies by "path@version".
func moduleDirs(ctx context.Context) (map[string]string, error) {
	if _, err := os.Stat("vendor"); err == nil {
		return vendored()
	}
	out, err := command(ctx, nil, "go", "list", "-m", "-json=Path,Version,Dir,Replace", "all")
	if err != nil {
		return nil, err
	}
	type module struct {
		Path, Version, Dir string
		Replace            *module
	}
	dirs := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m module
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the list of modules: %w", err)
		}
		if m.Replace != nil {
			m = *m.Replace
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

// vendored is moduleDirs in a source archive, which has its modules in the folder vendor.
func vendored() (map[string]string, error) {
	list, err := os.ReadFile("vendor/modules.txt")
	if err != nil {
		return nil, fmt.Errorf("read the list of vendored modules: %w", err)
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if words := strings.Fields(line); len(words) >= 3 && words[0] == "#" {
			dirs[words[1]+"@"+words[2]] = filepath.Join("vendor", words[1])
		}
	}
	return dirs, nil
}

// licenceFile matches the names of files with a licence, and of those that a licence wants to be
// passed on.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([-._].*)?$`)

func licencesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	found := false
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type().IsRegular() && licenceFile.MatchString(name) && !strings.HasSuffix(name, ".go") {
			all = append(all, filepath.Join(dir, name))
			found = found || !regexp.MustCompile(`(?i)^(notice|patents)`).MatchString(name)
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no licence text in %s", dir)
	}
	return all, nil
}

// bom returns the list of modules in CycloneDX 1.5.
func (o options) bom(program string, modules []linked) ([]byte, error) {
	type hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"` // hexadecimal
	}
	type component struct {
		Type    string `json:"type"`
		Ref     string `json:"bom-ref"`
		Name    string `json:"name"`
		Version string `json:"version"`
		PURL    string `json:"purl,omitempty"`
		Hashes  []hash `json:"hashes,omitempty"`
	}
	type metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	list := struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		Metadata: metadata{o.made.Format("2006-01-02T15:04:05Z"), component{Type: "application", Ref: program, Name: program, Version: o.version}},
	}
	for _, m := range modules {
		c := component{Type: "library", Ref: m.purl(), Name: m.Path, Version: m.Version, PURL: m.purl()}
		if sum, is := strings.CutPrefix(m.Sum, "h1:"); is {
			raw, err := base64.StdEncoding.DecodeString(sum)
			if err != nil {
				return nil, fmt.Errorf("read the hash of %s: %w", m.Path, err)
			}
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		}
		list.Components = append(list.Components, c)
	}
	return json.MarshalIndent(list, "", "  ")
}
