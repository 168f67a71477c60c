// Command release builds the packages of both programs, for `make packages`: deb, rpm and the file
// system of an OCI image, for every architecture, into one folder with checksums and the installer. The same sources, version and
// time give the same bytes.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are what the program is told.
type options struct {
	out         string    // folder that gets the packages
	version     string    // as packaging/version.sh prints it
	made        time.Time // of every file in the packages
	arches      []string  // as Go names them
	kinds       []string  // deb, rpm, rootfs
	programs    []string
	compression string // of deb and rpm
	url         string // where the release will be; empty where that is not known
	key         string // minisign's public key of the release; empty for none

	maintainer string // name and address of the maker of the packages
}

// noMaintainer stands in packages whose maker is not named: the address is one of the host on which
// they are installed.
const noMaintainer = "Unnamed builder <root@localhost>"

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the output folder: %w", err)
	}
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return fmt.Errorf("make a folder to build in: %w", err)
	}
	defer os.RemoveAll(work)
	for _, program := range o.programs {
		if err := o.build(ctx, program, work); err != nil {
			return fmt.Errorf("package %s: %w", program, err)
		}
	}
	if err := o.installer(); err != nil {
		return err
	}
	return writeSums(o.out)
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&o.out, "out", "dist", "folder that gets the packages")
	flags.StringVar(&o.version, "version", "", "version of the packages")
	epoch := flags.Int64("epoch", 0, "time of every file, in Unix seconds")
	arches := flags.String("arch", "amd64,arm64", "architectures, as Go names them")
	kinds := flags.String("kinds", "deb,rpm,"+rootfs, "what is made of each program")
	flags.StringVar(&o.compression, "compression", "xz", "compression of deb and rpm: xz, or gzip, which takes less time and makes larger packages")
	programs := flags.String("programs", "node-agent,node-core", "programs to package")
	flags.StringVar(&o.url, "url", "", "address at which the release will be, for install.sh and node-core node add")
	flags.StringVar(&o.key, "key", "", "minisign's public key, for install.sh")
	flags.StringVar(&o.maintainer, "maintainer", noMaintainer, "name and address of who makes the packages")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.maintainer == "" {
		o.maintainer = noMaintainer
	}
	if _, err := mail.ParseAddress(o.maintainer); err != nil {
		return o, fmt.Errorf("-maintainer is %q, and has to be like 'Name <name@example.org>': %w", o.maintainer, err)
	}
	if o.version == "" || *epoch == 0 {
		return o, errors.New("give -version and -epoch")
	}
	if strings.ContainsAny(o.url+o.key, "'\\\n \"") {
		return o, errors.New("-url and -key may have no quotes, spaces or backslashes: they become part of install.sh")
	}
	o.made = time.Unix(*epoch, 0).UTC()
	o.arches, o.kinds, o.programs = strings.Split(*arches, ","), strings.Split(*kinds, ","), strings.Split(*programs, ",")
	return o, nil
}

// build makes the packages of one program. The manual page and the completions come from the
// program itself, built for this machine.
func (o options) build(ctx context.Context, program, work string) error {
	dir := filepath.Join(work, program)
	own, err := o.compile(ctx, program, runtime.GOARCH, dir)
	if err != nil {
		return err
	}
	shared, err := generate(ctx, own, program, dir)
	if err != nil {
		return err
	}
	for _, arch := range o.arches {
		binary := own
		if arch != runtime.GOARCH {
			if binary, err = o.compile(ctx, program, arch, dir); err != nil {
				return err
			}
		}
		inventory, err := o.inventory(ctx, program, binary, filepath.Join(dir, arch))
		if err != nil {
			return err
		}
		contents := append([]content{{Source: binary, Target: "/usr/bin/" + program, Info: mode(0o755)}}, shared...)
		contents = append(contents, inventory...)
		if err := o.pack(ctx, program, arch, contents, dir); err != nil {
			return err
		}
		if slices.Contains(o.kinds, rootfs) {
			if err := o.image(program, arch, contents); err != nil {
				return err
			}
		}
	}
	return nil
}

// compile builds a program for an architecture: static, stripped, without paths of this machine.
func (o options) compile(ctx context.Context, program, arch, dir string) (binary string, err error) {
	binary = filepath.Join(dir, arch, program)
	ldflags := "-s -w -buildid= -X main.version=" + o.version
	if program == "node-core" && o.url != "" {
		ldflags += " -X main.releaseURL=" + o.url
	}
	_, err = command(ctx, []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOFLAGS="},
		"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", binary, "./cmd/"+program)
	return binary, err
}

// writeSums writes SHA256SUMS, as sha256sum does, of what is in the folder.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the packages: %w", err)
	}
	var sums strings.Builder
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "SHA256SUMS") || !entry.Type().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return fmt.Errorf("read the packages: %w", err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), entry.Name())
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644); err != nil {
		return fmt.Errorf("write checksums: %w", err)
	}
	return nil
}
