package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockName is the file that a daemon locks in the runtime folder.
const lockName = "lock"

// lockRuntimeDir makes the folder, mode 0700, and keeps a second daemon out of
// it until unlock is called.
func lockRuntimeDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make runtime folder: %w; create it or give another --runtime-dir", err)
	}
	if err := checkOwned(dir); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock runtime folder: %w; give a --runtime-dir that is writable", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock runtime folder %s: another node-agent uses it; stop that one, or give this one a --runtime-dir of its own", dir)
		}
		return nil, fmt.Errorf("lock runtime folder %s: %w", dir, err)
	}
	return func() { _ = file.Close() }, nil
}

// checkOwned returns an error for a folder in which another user can make or replace files: the
// socket and the counters are there.
func checkOwned(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at the runtime folder: %w", err)
	}
	stat, is := info.Sys().(*syscall.Stat_t)
	switch {
	case !is:
		return nil
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("the runtime folder %s has mode %04o, so that other users can write into it; chmod 0700 it, or give another --runtime-dir", dir, info.Mode().Perm())
	case stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("the runtime folder %s belongs to the user %d; chown it to the user of node-agent (%d), or give another --runtime-dir", dir, stat.Uid, os.Geteuid())
	}
	return nil
}
