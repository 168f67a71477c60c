package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockRuntimeDir makes the folder, mode 0700, and keeps a second daemon out of
// it until unlock is called.
func lockRuntimeDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make runtime folder: %w; create it or give another --runtime-dir", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
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
