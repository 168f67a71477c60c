package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are the paths of the programs.
type Programs struct {
	Agent string // node-agent
	Core  string // node-core
	Xray  string // stock xray-core, of the version that node-agent embeds
	Older bool   // the programs are of a version that does not know client_networks
}

// Build builds the programs into dir with build tags, static as the Makefile builds them. Go
// takes from its build cache what it can.
func Build(ctx context.Context, dir, tags string) (Programs, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return Programs{}, err
	}
	p := programsIn(dir)
	for path, pkg := range map[string]string{
		p.Agent: "./cmd/node-agent", p.Core: "./cmd/node-core", p.Xray: "github.com/xtls/xray-core/main",
	} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", tags, "-o", path, pkg)
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return p, nil
}

// faultSource is a file that is added to node-agent's program by buildFaulty. It makes a command of the
// program fail as a file beside the program says, for example "run panics".
const faultSource = `package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

func init() {
	path, _ := os.Executable()
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "fault"))
	command, fault, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if len(os.Args) < 2 || os.Args[1] != command {
		return
	}
	switch fault {
	case "panics":
		panic("a fault of this build")
	case "hangs":
		time.Sleep(time.Hour)
	case "panics soon":
		time.AfterFunc(1500*time.Millisecond, func() { panic("a fault of this build") })
	}
}
`

// layoutSource is added to package store: the layout of the state file is a variable there.
const layoutSource = `package store

import (
	"os"
	"path/filepath"
)

var layout = func() uint32 {
	path, _ := os.Executable()
	if text, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "fault")); len(text) > 5 && string(text[:5]) == "store" {
		return 3
	}
	return 1
}()
`

// buildFaulty builds node-agent alone into dir: the same source and another build, which fails where a
// file "fault" beside the program says so. Where that file begins with "store", its state file has
// another layout.
func buildFaulty(ctx context.Context, dir string) (path string, err error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	sources := map[string]string{filepath.Join(root, "cmd", "node-agent", "fault.go"): faultSource}
	for name, constant := range map[string]string{"store.go": "\tlayout      = 1 // see also layoutChanges\n", "change.go": "const layoutChanges = 2\n"} {
		source := filepath.Join(root, "store", name)
		text, err := os.ReadFile(source)
		if err != nil {
			return "", fmt.Errorf("read a source: %w", err)
		}
		if !strings.Contains(string(text), constant) {
			return "", fmt.Errorf("%s does not have the line %q any more", source, constant)
		}
		sources[source] = strings.Replace(string(text), constant, "", 1)
	}
	sources[filepath.Join(root, "store", "change.go")] += "\nvar layoutChanges = layout + 1\n"
	sources[filepath.Join(root, "store", "layout.go")] = layoutSource
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for at, text := range sources {
		file := filepath.Join(dir, filepath.Base(at))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write a source: %w", err)
		}
		overlay.Replace[at] = file
	}
	list, err := json.Marshal(overlay)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("write the list of sources: %w", err)
	}
	path = filepath.Join(dir, "node-agent")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", path, "./cmd/node-agent")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build node-agent: %w\n%s", err, out)
	}
	return path, nil
}

// programsIn returns the programs that Build has built into dir.
func programsIn(dir string) Programs {
	return Programs{Agent: filepath.Join(dir, "node-agent"), Core: filepath.Join(dir, "node-core"), Xray: filepath.Join(dir, "xray")}
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("find the module: this is no checkout of it")
	}
	return filepath.Dir(mod), nil
}
