package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"nodeagent/store"
)

// registeringFolder is the folder in the state folder that has the state file until the
// node is registered.
//
// A registration is stored before it is sent, so that a lost answer can be had again. It
// may not be stored in node.db itself: the systemd unit starts the daemon wherever that
// file exists (ConditionPathExists), and a daemon without an identity ends at once, and is
// started again for ever.
const registeringFolder = "registering"

// checkRegistered returns store.ErrNotRegistered where the state folder has no state file.
// To open the store would make one.
func checkRegistered(dir string) error {
	path := store.Path(dir)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (there is no %s)", store.ErrNotRegistered, path)
	}
	return nil
}

// registering runs register with the store of the state folder. Where the node is not
// registered yet, the store comes to its place only after register has succeeded. After an
// error it stays in registeringFolder while it has a registration that may be repeated, and
// is removed otherwise. Its files belong to the owner of the state folder, also where root
// runs the command.
func registering(dir string, register func(*store.Store) error) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w; create it or give another --state-dir", err)
	}
	staging := filepath.Join(dir, registeringFolder)
	if err := promoteRegistered(dir, staging); err != nil {
		return err
	}
	if checkRegistered(dir) == nil {
		db, err := store.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(register(db), db.Close())
	}
	defer func() { err = errors.Join(err, giveToOwner(dir, staging)) }()
	db, err := store.Open(staging)
	if err != nil {
		return err
	}
	if err := register(db); err != nil {
		_, found, readErr := db.Attempt()
		err = errors.Join(err, readErr, db.Close())
		if !found && readErr == nil {
			err = errors.Join(err, os.RemoveAll(staging))
		}
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	return promote(dir, staging)
}

// promoteRegistered finishes a registration that was interrupted after the identity had
// been stored.
func promoteRegistered(dir, staging string) error {
	hasState := func(dir string) bool { return checkRegistered(dir) == nil }
	if hasState(dir) || !hasState(staging) {
		return nil
	}
	db, err := store.Open(staging)
	if err != nil {
		return err
	}
	_, err = db.Identity()
	if err := errors.Join(err, db.Close()); errors.Is(err, store.ErrNotRegistered) {
		return nil
	} else if err != nil {
		return err
	}
	return promote(dir, staging)
}

// promote moves the state file to its place.
func promote(dir, staging string) error {
	if err := giveToOwner(dir, staging); err != nil {
		return err
	}
	if err := os.Rename(store.Path(staging), store.Path(dir)); err != nil {
		return fmt.Errorf("place the state file: %w; repeat the command: the node is registered", err)
	}
	if err := syncFolder(dir); err != nil {
		return err
	}
	return os.RemoveAll(staging)
}

// syncFolder writes a folder's entries to the disk: after a power cut the state file is in
// its place.
func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync state folder: %w", err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("sync state folder: %w", err)
	}
	return nil
}

// giveToOwner gives what is in staging, and staging, to the owner of the folder dir. Only
// root can give files away; another user's files belong to that user, and where that is not
// the owner of dir, opening the store has failed already.
func giveToOwner(dir, staging string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("find the owner of the state folder: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	err = filepath.WalkDir(staging, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give the state to the owner of %s: %w; do it with 'chown -R --reference=%s %s'", dir, err, dir, dir)
	}
	return nil
}
