package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// openHints say what to do about an error of the operating system with which the state file
// cannot be opened. The file itself is good in all of these cases.
var openHints = []struct {
	is   []error
	hint string
}{
	{[]error{unix.EMFILE, unix.ENFILE}, "no more files can be opened: raise LimitNOFILE= of the service (ulimit -n), or fs.file-max of the host"},
	{[]error{unix.ENOLCK, unix.ENOTSUP, unix.ENOSYS}, "the file system of the state folder gives no locks: put the state folder on a local file system (--state-dir)"},
	{[]error{unix.ENODEV}, "the file system of the state folder cannot map files into memory: put the state folder on a local file system (--state-dir)"},
	{[]error{unix.ENOMEM, unix.EAGAIN}, "there is no memory or address space for it: free memory, or raise LimitAS= and LimitMEMLOCK= of the service (ulimit -v)"},
	{[]error{fs.ErrPermission}, "run as the user that owns the state folder, or give the folder and its files to this user (chown)"},
	{[]error{unix.EROFS}, "the file system of the state folder is mounted read-only: mount it writable, or put the state folder elsewhere (--state-dir)"},
	{[]error{unix.ENOSPC, unix.EDQUOT}, "make room on the file system of the state folder, or raise the quota"},
	{[]error{unix.EIO}, "the disk of the state folder cannot be read or written: see the kernel's log (dmesg), and copy the state folder to another disk"},
	{[]error{unix.EISDIR}, "a folder is in the place of the state file: move it away, and put the state file back if there is a copy"},
	{[]error{unix.ENOTDIR, unix.EEXIST}, "a file is in the place of the state folder or of a folder above it: move it away, or give another --state-dir"},
	{[]error{unix.ELOOP}, "symbolic links lead in a circle: repair them, or give another --state-dir"},
	{[]error{unix.ETXTBSY, unix.ENXIO}, "it is no regular file: move it away, and put the state file back if there is a copy"},
}

// hintFor returns what to do about an error of the operating system; empty where there is
// nothing to say.
func hintFor(err error) string {
	for _, h := range openHints {
		for _, is := range h.is {
			if errors.Is(err, is) {
				return h.hint
			}
		}
	}
	return ""
}

// openError adds what to do about an error of opening the file at path. Only a file that bbolt
// cannot read is called damaged.
func openError(path string, err error) error {
	if cause, ok := errors.AsType[*fs.PathError](err); ok && cause.Path == path {
		err = cause.Err // the path comes once
	}
	switch {
	case errors.Is(err, ErrInUse), errors.Is(err, ErrCorrupt):
		return fmt.Errorf("open %s: %w", path, err)
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open %s: %w", path, ErrInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("open %s: %w (%w)", path, ErrCorrupt, err)
	}
	if hint := hintFor(err); hint != "" {
		return fmt.Errorf("open %s: %w; %s", path, err, hint)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// makeFolder makes the state folder, for this user alone, if it is missing.
func makeFolder(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		return nil
	}
	hint := hintFor(err)
	if errors.Is(err, fs.ErrPermission) || hint == "" {
		hint = "make it as a user who may, and give it to the user of node-agent; or give another --state-dir"
	}
	return fmt.Errorf("make state folder: %w; %s", err, hint)
}

// checkKind returns an error where path is there and no regular file: to open a device or a pipe
// can have effects.
func checkKind(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return openError(path, err)
	case info.IsDir():
		return openError(path, unix.EISDIR)
	case !info.Mode().IsRegular():
		return fmt.Errorf("open %s: it is no regular file (%s): move it away, and put the state file back if there is a copy", path, info.Mode())
	}
	return nil
}
