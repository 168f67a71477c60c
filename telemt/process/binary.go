package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/mod/semver"
)

const (
	// minVersion is the lowest release whose API and metrics the node can use.
	minVersion = "v3.4.14"
	// reloadVersion is the lowest release that can reload its configuration without a
	// restart.
	reloadVersion = "v3.4.25"

	versionTimeout = 5 * time.Second
)

// MissingError means that there is no telemt that the node can run.
type MissingError struct{ Message string }

func (e *MissingError) Error() string { return e.Message }

// Release is a telemt program on the disk.
type Release struct {
	Path    string // without symbolic links
	Version string // with a "v", as in v3.4.25
	File    FileID
}

// CanReload reports whether the release can reload its configuration without a restart.
func (r Release) CanReload() bool { return semver.Compare(r.Version, reloadVersion) >= 0 }

// Same reports whether both are the same file with the same content.
func (r Release) Same(other Release) bool { return r.File == other.File }

// FileID is different after a file was replaced, as by a package upgrade, or written.
type FileID struct {
	Device, Inode uint64
	Size          int64
	Modified      time.Time // UTC
}

// Binary finds the telemt program; NewBinary makes it. It asks the program for its version only when the
// file has changed. Several goroutines may use a Binary at the same time.
type Binary struct {
	name atomic.Value // a string: a path, or a name to look for in PATH

	// mu is held while a program is asked for its version, up to 5 s. No other lock is
	// taken under it.
	mu    sync.Mutex
	known Release
	seen  FileID // at the last call of Replaced
	// version is that of known. It has no lock, so that Version never waits.
	version atomic.Value
}

// NewBinary returns the Binary of a path, or of a name to look for in PATH.
func NewBinary(name string) *Binary {
	b := &Binary{}
	b.SetName(name)
	return b
}

// SetName makes the Binary look for another path or name. A telemt that runs is then no longer
// the current one, as after an upgrade, unless it is the same file.
func (b *Binary) SetName(name string) { b.name.Store(name) }

// Name is the path, or the name to look for in PATH.
func (b *Binary) Name() string { return b.name.Load().(string) }

// Find returns the telemt that is on the disk now. If that can't be used, the error is a
// *MissingError.
func (b *Binary) Find(ctx context.Context) (Release, error) {
	path, err := b.resolve()
	if err != nil {
		return Release{}, &MissingError{fmt.Sprintf("telemt is not installed (%v): install release %s or later, or set telemt.binary in the configuration to its path", err, minVersion[1:])}
	}
	file, err := identify(path)
	if err != nil {
		return Release{}, &MissingError{fmt.Sprintf("look at telemt's program: %v", err)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known.Path == path && b.known.File == file {
		return b.known, nil
	}
	version, err := AskVersion(ctx, path)
	if err != nil {
		return Release{}, err
	}
	b.known = Release{Path: path, Version: version, File: file}
	b.version.Store(version)
	return b.known, nil
}

// Version returns the version of the telemt that was found last, as in 3.4.25, or "" if
// none was found yet.
func (b *Binary) Version() string {
	version, _ := b.version.Load().(string)
	return strings.TrimPrefix(version, "v")
}

// IsCurrent reports whether the release is still the program that Find would return.
func (b *Binary) IsCurrent(r Release) bool {
	path, err := b.resolve()
	if err != nil || path != r.Path {
		return false
	}
	file, err := identify(path)
	return err == nil && file == r.File
}

// Path returns where the program is, or where it would be: links are not followed. It returns ""
// where the program is not in PATH, and could be anywhere.
func (b *Binary) Path() string {
	name := b.Name()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	if filepath.IsAbs(name) {
		return name
	}
	return ""
}

// Replaced reports whether the program is another file, or has another content, than at the last
// call. A program that is not there is another one too.
func (b *Binary) Replaced() bool {
	var now FileID
	if path, err := b.resolve(); err == nil {
		now, _ = identify(path)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen == now {
		return false
	}
	b.seen = now
	return true
}

// resolve returns the program's path without symbolic links. An upgrade replaces the
// file that a link points to, and not the link.
func (b *Binary) resolve() (string, error) {
	path, err := exec.LookPath(b.Name())
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

func identify(path string) (FileID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return FileID{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FileID{}, fmt.Errorf("stat %s: the file system gives no inode", path)
	}
	return FileID{uint64(stat.Dev), stat.Ino, info.Size(), info.ModTime().UTC()}, nil //nolint:unconvert // Dev has 32 bits on some systems
}

// AskVersion runs the program with --version, which prints "telemt 3.4.25", and returns "v3.4.25".
// Where the node cannot use it, the error is a *MissingError.
func AskVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", &MissingError{fmt.Sprintf("telemt does not run: %s --version: %v", path, err)}
	}
	words := strings.Fields(string(out))
	if len(words) < 2 || words[0] != "telemt" || !semver.IsValid("v"+words[1]) {
		return "", &MissingError{fmt.Sprintf("%s is not telemt: its --version prints %.60q", path, out)}
	}
	version := "v" + words[1]
	if semver.Compare(version, minVersion) < 0 {
		return "", &MissingError{fmt.Sprintf("telemt %s at %s is too old: install release %s or later", words[1], path, minVersion[1:])}
	}
	return version, nil
}
