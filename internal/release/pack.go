package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// about has what the packages say of the programs.
var about = map[string]string{
	"node-agent": "VPN node: serves Xray and MTProto inbounds under the control of a Core\n" +
		"node-agent registers a host with a Core, runs the inbounds that Core configures,\ncounts the traffic of every client, and reports it.",
	"node-core": "Core of VPN nodes: what they serve, to whom, and how much was used\n" +
		"node-core controls node-agents from one SQLite file, and counts the traffic of\nevery subscription.",
}

// pack writes the deb and the rpm of a program for an architecture.
func (o options) pack(ctx context.Context, program, arch string, contents []content, dir string) error {
	scripts, err := writeScripts(program, dir)
	if err != nil {
		return err
	}
	at := o.made.Format("2006-01-02T15:04:05Z")
	contents = append(contents, folders(program, contents)...)
	for i := range contents {
		contents[i].Info.MTime = at
	}
	// nfpm's configuration is YAML, of which JSON is a part.
	config, err := json.MarshalIndent(map[string]any{
		"name": program, "arch": arch, "platform": "linux", "version": o.version, "version_schema": "none",
		"section": "net", "priority": "optional", "maintainer": o.maintainer,
		"description": about[program], "license": "GPL-3.0-or-later", "mtime": at, "umask": 0o22,
		"disable_globbing": true, "recommends": []string{"ca-certificates"},
		"contents": contents, "scripts": scripts,
		"deb": map[string]any{"compression": o.compression},
		"rpm": map[string]any{"compression": o.compression, "buildhost": "localhost", "group": "System Environment/Daemons", "summary": strings.SplitN(about[program], "\n", 2)[0]},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write nfpm's configuration: %w", err)
	}
	file := filepath.Join(dir, arch, "nfpm.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return fmt.Errorf("write nfpm's configuration: %w", err)
	}
	for _, packager := range o.kinds {
		if packager == rootfs {
			continue
		}
		// nfpm belongs to a module file of its own, which a vendor folder does not serve.
		_, err := command(ctx, []string{"CGO_ENABLED=0", "GOFLAGS=-mod=mod", "SOURCE_DATE_EPOCH=" + fmt.Sprint(o.made.Unix())},
			"go", "tool", "-modfile=packaging/tools.mod", "nfpm", "package", "-f", file, "-p", packager, "-t", filepath.Join(o.out, packageName(program, o.version, arch, packager)))
		if err != nil {
			return err
		}
	}
	return nil
}

// folders returns the folders that belong to a program alone. rpm leaves a folder behind that no
// package has by its name; dpkg removes folders that are empty by itself.
func folders(program string, contents []content) []content {
	own := map[string]bool{}
	for _, c := range contents {
		for dir := path.Dir(c.Target); strings.Contains(dir+"/", "/"+program+"/"); dir = path.Dir(dir) {
			own[dir] = true
		}
	}
	var all []content
	for _, dir := range slices.Sorted(maps.Keys(own)) {
		all = append(all, content{Target: dir, Kind: "dir", Packager: "rpm", Info: mode(0o755)})
	}
	return all
}

// packageName is the name by which install.sh finds a package.
func packageName(program, version, arch, packager string) string {
	return fmt.Sprintf("%s_%s_%s.%s", program, version, arch, packager)
}

// writeScripts writes the scripts of a program's packages: those in packaging/scripts, which both
// programs share, with the program's name.
func writeScripts(program, dir string) (map[string]string, error) {
	scripts := map[string]string{}
	for _, name := range []string{"postinstall", "preremove", "postremove"} {
		body, err := os.ReadFile("packaging/scripts/" + name + ".sh")
		if err != nil {
			return nil, fmt.Errorf("read a script of the packages: %w", err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, append([]byte("#!/bin/sh\nset -e\nname="+program+"\n"), body...), 0o755); err != nil {
			return nil, fmt.Errorf("write a script of the packages: %w", err)
		}
		scripts[name] = path
	}
	return scripts, nil
}
