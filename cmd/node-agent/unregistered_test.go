package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nodeagent/store"
)

// save is a registration that succeeds.
func save(db *store.Store) error {
	return db.SaveIdentity(time.Now(), store.Identity{NodeID: "7", AuthKey: "key", CoreURL: "https://core.example"})
}

// Root may run `register`. The daemon runs as the owner of the state folder, who has to be
// able to read the files that root made, also those of a registration whose answer was lost.
func TestRootGivesTheStateToItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can give files away; run the tests as root")
	}
	const owner = 12345
	dir := t.TempDir()
	if err := os.Chown(dir, owner, owner); err != nil {
		t.Fatal(err)
	}
	belongs := func(path string) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != owner {
			t.Errorf("%s belongs to user %d, want %d", path, uid, owner)
		}
	}
	lost := errors.New("the answer is lost")
	err := registering(dir, func(db *store.Store) error {
		if err := db.SaveAttempt(store.Attempt{CoreURL: "https://core.example", Code: "good", Key: "k", Body: "{}"}); err != nil {
			t.Fatal(err)
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Fatalf("got %v, want %v", err, lost)
	}
	belongs(filepath.Join(dir, registeringFolder))
	belongs(store.Path(filepath.Join(dir, registeringFolder)))
	if err := registering(dir, func(db *store.Store) error {
		if _, found, err := db.Attempt(); err != nil || !found {
			t.Errorf("the attempt is gone (%v): its lost answer can't be had again", err)
		}
		return save(db)
	}); err != nil {
		t.Fatal(err)
	}
	belongs(store.Path(dir))
}

// A command that was killed once it had stored the identity, and before the file was in its
// place, is finished by the next one.
func TestInterruptedRegistrationIsFinished(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(filepath.Join(dir, registeringFolder))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(save(db), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := registering(dir, func(db *store.Store) error {
		_, err := db.Identity()
		return err
	}); err != nil {
		t.Errorf("the identity is not there: %v", err)
	}
	if err := checkRegistered(dir); err != nil {
		t.Error(err)
	}
}

// Nothing is left of a registration that was not even sent.
func TestUnsentRegistrationLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := registering(dir, func(*store.Store) error { return errors.New("not sent") }); err == nil {
		t.Fatal("the error is lost")
	}
	if _, err := os.Stat(filepath.Join(dir, registeringFolder)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder is left (%v)", err)
	}
}
