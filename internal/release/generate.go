package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// command runs a program in the current folder, with additions to the environment, and returns
// its output.
func command(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var words bytes.Buffer
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s %q: %w\n%s", program, args, err, words.String())
	}
	return out, nil
}

// content is an entry of a package, in nfpm's words.
type content struct {
	Source   string `json:"src,omitempty"`
	Target   string `json:"dst"`
	Kind     string `json:"type,omitempty"`     // "config|noreplace" keeps what an operator wrote
	Packager string `json:"packager,omitempty"` // deb or rpm; empty for both
	Info     *info  `json:"file_info,omitempty"`
}

type info struct {
	Mode  os.FileMode `json:"mode,omitempty"`
	MTime string      `json:"mtime,omitempty"`
}

func mode(m os.FileMode) *info { return &info{Mode: m} }

// generate returns what a program's packages of all architectures share. Generated files are
// written to dir.
func generate(ctx context.Context, binary, program, dir string) ([]content, error) {
	all := []content{
		{Source: "packaging/" + program + ".service", Target: "/usr/lib/systemd/system/" + program + ".service"},
		{Source: "packaging/" + program + ".sysusers", Target: "/usr/lib/sysusers.d/" + program + ".conf"},
		{Source: "packaging/" + program + ".tmpfiles", Target: "/usr/lib/tmpfiles.d/" + program + ".conf"},
		{Source: "README.md", Target: "/usr/share/doc/" + program + "/README.md"},
		{Source: "CHANGELOG.md", Target: "/usr/share/doc/" + program + "/CHANGELOG.md"},
	}
	if program == "node-agent" {
		all = append(all, content{Source: "packaging/90-node-agent.conf", Target: "/usr/lib/sysctl.d/90-node-agent.conf"},
			content{Source: "packaging/config.toml", Target: "/etc/node-agent/config.toml", Kind: "config|noreplace"})
	} else {
		all = append(all, content{Source: "packaging/node-core.environment", Target: "/etc/node-core/environment", Kind: "config|noreplace"})
	}
	for i := range all {
		all[i].Info = mode(0o644)
	}
	for _, made := range []struct {
		name, target, packager string
		args                   []string
		gzip                   bool
	}{
		{"man", "/usr/share/man/man1/" + program + ".1.gz", "", []string{"man"}, true},
		{"bash", "/usr/share/bash-completion/completions/" + program, "", []string{"completion", "bash"}, false},
		{"fish", "/usr/share/fish/vendor_completions.d/" + program + ".fish", "", []string{"completion", "fish"}, false},
		{"zsh", "/usr/share/zsh/vendor-completions/_" + program, "deb", []string{"completion", "zsh"}, false},
		{"zsh", "/usr/share/zsh/site-functions/_" + program, "rpm", []string{"completion", "zsh"}, false},
	} {
		text, err := command(ctx, nil, binary, made.args...)
		if err != nil {
			return nil, err
		}
		if made.gzip {
			text = compressed(text)
		}
		path := filepath.Join(dir, made.name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return nil, fmt.Errorf("write %s: %w", made.target, err)
		}
		all = append(all, content{Source: path, Target: made.target, Packager: made.packager, Info: mode(0o644)})
	}
	return all, nil
}

// compressed returns data as gzip, which has no name and no time.
func compressed(data []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression) // the level is valid
	_, _ = w.Write(data)                                    // a buffer takes all
	_ = w.Close()
	return out.Bytes()
}
