package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// removeIfThere removes a file, which may not be there.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an unfinished file: %w", err)
	}
	return nil
}

// syncPath writes a file, or the entries of a folder, to the disk.
func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("write to the disk: %w", err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write %s to the disk: %w", path, err)
	}
	return nil
}

// chownAs gives a file to the owner of another one.
func chownAs(path string, of fs.FileInfo) error {
	owner, ok := of.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() && int(owner.Gid) == os.Getegid() {
		return nil
	}
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("give the new file to the owner of the old one: %w", err)
	}
	return nil
}
