package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// An error of opening says what it is and what to do. Only damage is called damage: the advice to
// register again costs the key and the usage that waits.
func TestOpenErrorsSayWhatToDo(t *testing.T) {
	const path = "/var/lib/node-agent/node.db"
	for _, c := range []struct {
		err     error
		hint    string
		damaged bool
	}{
		{unix.EMFILE, "LimitNOFILE", false},
		{unix.ENFILE, "file-max", false},
		{unix.ENOLCK, "local file system", false},
		{unix.ENODEV, "local file system", false},
		{unix.ENOMEM, "memory", false},
		{unix.EACCES, "chown", false},
		{unix.EPERM, "chown", false},
		{unix.EROFS, "read-only", false},
		{unix.ENOSPC, "make room", false},
		{unix.EDQUOT, "quota", false},
		{unix.EIO, "dmesg", false},
		{unix.EISDIR, "a folder is in the place", false},
		{unix.ENOTDIR, "a file is in the place", false},
		{unix.EINVAL, "invalid argument", false},
		{berrors.ErrTimeout, "in use by another node-agent", false},
		{berrors.ErrInvalid, "damaged", true},
		{berrors.ErrChecksum, "damaged", true},
		{berrors.ErrVersionMismatch, "damaged", true},
	} {
		for _, err := range []error{c.err, &os.PathError{Op: "open", Path: path, Err: c.err}, fmt.Errorf("mmap: %w", c.err)} {
			got := openError(path, err)
			if !errors.Is(got, ErrCorrupt) != !c.damaged || strings.Contains(got.Error(), "damaged") != c.damaged {
				t.Errorf("%v: is it damage? %v", c.err, got)
			}
			if !strings.Contains(got.Error(), c.hint) || strings.Count(got.Error(), path) != 1 {
				t.Errorf("%v: got %q, want %q in it and the path once", c.err, got, c.hint)
			}
			if !c.damaged && !errors.Is(c.err, berrors.ErrTimeout) && !errors.Is(got, c.err) {
				t.Errorf("%v: %v hides it", c.err, got)
			}
		}
	}
}

// The error names the thing that stands in the place of the file or of the folder.
func TestSomethingElseInTheirPlace(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		want string
	}{
		"a folder for the file": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, fileName), 0o700) }, "a folder is in the place of the state file"},
		"a pipe for the file": {func(dir string) error {
			return errors.Join(os.MkdirAll(dir, 0o700), unix.Mkfifo(filepath.Join(dir, fileName), 0o600))
		}, "no regular file"},
		"a file for the folder":         {func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "a file is in the place of the state folder"},
		"a file for a folder above it":  {func(dir string) error { return os.WriteFile(filepath.Dir(dir), nil, 0o600) }, "a file is in the place of the state folder"},
		"a circle of links for the dir": {func(dir string) error { return os.Symlink(dir, dir) }, "state folder"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "above", "state")
			if !strings.Contains(name, "above") {
				if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir)
			if err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want %q", s, err, c.want)
			}
		})
	}
}

// With no descriptor left, the file is not called damaged.
func TestOpenWithoutDescriptors(t *testing.T) {
	dir := t.TempDir()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); again != nil {
		t.Fatal(again)
	}
	if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "LimitNOFILE") {
		t.Errorf("got %v", err)
	}
}
