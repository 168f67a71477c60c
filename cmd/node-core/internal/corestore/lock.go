package corestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockName is the file that a process locks while the database of the folder is its own. The
// file stays: a process that removed it could remove the lock of another one.
const lockName = "core.lock"

// Lock makes the data folder dir this process's own, for a Core that serves or a restore. It
// creates the folder (mode 0700) where it does not exist. The kernel gives the lock back when
// the process ends.
func Lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w; create it yourself or give another --data-dir", err)
	}
	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, openError(path, err)
	}
	if err := giveToOwner(dir, path); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another node-core runs in %s; stop it, or give this one another --data-dir", dir)
		}
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	return func() { _ = file.Close() }, nil
}
