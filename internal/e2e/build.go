package e2e

import (
	"context"
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

// BuildAgent builds node-agent alone into path, with build tags.
func BuildAgent(ctx context.Context, path, tags string) (string, error) {
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", tags, "-o", path, "./cmd/node-agent")
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
