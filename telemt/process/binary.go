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
	// minVersion is the lowest release whose API and metrics the node knows.
	minVersion = "v3.4.14"
	// reloadVersion is the lowest that can load a whole configuration anew
	// without a restart.
	reloadVersion = "v3.4.25"

	versionTimeout = 5 * time.Second
)

// MissingError means that there is no telemt that could be run.
type MissingError struct{ Message string }

func (e *MissingError) Error() string { return e.Message }

// Release is a telemt program as it lies on the disk.
type Release struct {
	Path    string
	Version string // as v3.4.25
	File    FileID
}

// CanReload tells whether it has system/reload.
func (r Release) CanReload() bool { return semver.Compare(r.Version, reloadVersion) >= 0 }

// FileID changes when a file is replaced, as by a package upgrade, or rewritten.
type FileID struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

// Binary finds telemt and keeps its version as long as the file is the same.
type Binary struct {
	Name string // a path, or a name that is looked for in PATH

	mu    sync.Mutex
	known Release
	found atomic.Value // known's version, to be read while somebody looks
}

// Find returns the telemt that is on the disk now; the error is a *MissingError
// where that can't be run.
func (b *Binary) Find(ctx context.Context) (Release, error) {
	path, err := exec.LookPath(b.Name)
	if err == nil {
		path, err = filepath.EvalSymlinks(path) // what a link points to is what is replaced
	}
	if err != nil {
		return Release{}, &MissingError{fmt.Sprintf("telemt is not here (%v): install release %s or later from its project, or name it in the configuration as telemt.binary", err, minVersion[1:])}
	}
	file, err := Identify(path)
	if err != nil {
		return Release{}, &MissingError{fmt.Sprintf("telemt can't be looked at: %v", err)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known.Path == path && b.known.File == file {
		return b.known, nil
	}
	version, err := askVersion(ctx, path)
	if err != nil {
		return Release{}, err
	}
	b.known = Release{Path: path, Version: version, File: file}
	b.found.Store(version)
	return b.known, nil
}

// Version is that of the telemt that was found last; empty before.
func (b *Binary) Version() string {
	version, _ := b.found.Load().(string)
	return strings.TrimPrefix(version, "v")
}

// Same tells whether the name still leads to that file.
func (b *Binary) Same(path string) bool {
	now, err := exec.LookPath(b.Name)
	if err != nil {
		return false
	}
	now, err = filepath.EvalSymlinks(now)
	return err == nil && now == path
}

// WatchDir is where the program lies or would lie, to be watched; empty where
// nobody knows.
func (b *Binary) WatchDir() string {
	path, err := exec.LookPath(b.Name)
	if err != nil {
		if filepath.IsAbs(b.Name) {
			return filepath.Dir(b.Name)
		}
		return ""
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Dir(path)
}

// Identify looks at the file on the disk.
func Identify(path string) (FileID, error) {
	info, err := os.Stat(path)
	if err != nil {
		return FileID{}, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return FileID{}, fmt.Errorf("stat %s: the file system tells no inode", path)
	}
	return FileID{uint64(stat.Dev), stat.Ino, info.Size(), info.ModTime()}, nil //nolint:unconvert // Dev is of 32 bits on some systems
}

// askVersion runs the program; it prints "telemt 3.4.25".
func askVersion(ctx context.Context, path string) (string, error) {
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
		return "", &MissingError{fmt.Sprintf("%s is not telemt: its --version says %.60q", path, out)}
	}
	version := "v" + words[1]
	if semver.Compare(version, minVersion) < 0 {
		return "", &MissingError{fmt.Sprintf("telemt %s at %s is too old: install release %s or later", words[1], path, minVersion[1:])}
	}
	return version, nil
}
