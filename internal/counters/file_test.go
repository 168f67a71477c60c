package counters

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/namespace"
)

func create(t *testing.T) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counters")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, path
}

// A new file takes the place of another one, which stays whole for a worker that has it
// open. No temporary file is left, and only this user can read the new one.
func TestCreateReplaces(t *testing.T) {
	before, path := create(t)
	slot, err := before.Slot(0)
	if err != nil {
		t.Fatal(err)
	}
	slot.Up.Add(7)
	after, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if after.Epoch() == before.Epoch() {
		t.Error("the new file has the epoch of the one before")
	}
	if up, _ := before.Read(0); up != 7 {
		t.Errorf("the file before has %d bytes in slot 0, want 7", up)
	}
	if up, _ := after.Read(0); up != 0 {
		t.Errorf("the new file has %d bytes in slot 0, want none", up)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, want one file (%v)", entries, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %o, want 600", info.Mode().Perm())
	}
	if _, err := Create(filepath.Join(path, "no folder")); err == nil {
		t.Error("a file in a folder that is none was made")
	}
}

func TestTwoMappingsShareTheirCounters(t *testing.T) {
	owner, path := create(t)
	if err := owner.Grow(10); err != nil {
		t.Fatal(err)
	}
	other, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if owner.Epoch() != other.Epoch() {
		t.Fatalf("epochs differ: %s and %s", owner.Epoch(), other.Epoch())
	}
	var wg sync.WaitGroup
	for _, f := range []*File{owner, other} {
		slot, err := f.Slot(7)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 1000 {
				slot.Up.Add(3)
				slot.Down.Add(5)
			}
		})
	}
	wg.Wait()
	if up, down := owner.Read(7); up != 6000 || down != 10000 {
		t.Fatalf("read %d up and %d down, want 6000 and 10000", up, down)
	}
}

func TestSlotSeesGrowthByAnotherMapping(t *testing.T) {
	owner, path := create(t)
	other, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Slot(growStep); err == nil {
		t.Fatal("a slot behind the end of the file was handed out")
	}
	if err := owner.Grow(growStep + 1); err != nil {
		t.Fatal(err)
	}
	slot, err := other.Slot(growStep)
	if err != nil {
		t.Fatal(err)
	}
	slot.Up.Add(1)
	if up, _ := owner.Read(growStep); up != 1 {
		t.Fatalf("read %d, want 1", up)
	}
	if err := owner.Grow(maxSlots + 1); err == nil {
		t.Fatal("grew beyond the most slots")
	}
}

func TestDamagedFilesAreRefused(t *testing.T) {
	f, path := create(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = f
	cases := map[string]func([]byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"short header":    func(b []byte) []byte { return b[:20] },
		"foreign magic":   func(b []byte) []byte { b[0] ^= 1; return b },
		"other version":   func(b []byte) []byte { b[8]++; return b },
		"epoch bit":       func(b []byte) []byte { b[20] ^= 1; return b },
		"half a slot":     func(b []byte) []byte { return b[:headerSize+slotSize/2] },
		"header only cut": func(b []byte) []byte { return b[:headerSize-1] },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(bad, damage(append([]byte(nil), good...)), 0o600); err != nil {
				t.Fatal(err)
			}
			if f, err := Open(bad); !errors.Is(err, ErrDamaged) {
				t.Fatalf("open gave %v, %v; want ErrDamaged", f, err)
			}
		})
	}
}

func TestAwaitNoWriter(t *testing.T) {
	owner, path := create(t)
	writer, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.HoldShared(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := owner.AwaitNoWriter(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waited with a writer alive: %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := owner.AwaitNoWriter(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A file system without fallocate, as ramfs, is served by writing.
func TestGrowWithoutFallocate(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the namespace ends
	f, err := Create(filepath.Join(dir, "counters"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.file.Fd()), 0, 0, 1); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("ramfs has fallocate now (%v): this test proves nothing", err)
	}
	slot, err := f.Slot(0)
	if err != nil {
		t.Fatal(err)
	}
	slot.Up.Add(7)
	if err := f.Grow(2 * growStep); err != nil {
		t.Fatal(err)
	}
	last, err := f.Slot(2*growStep - 1)
	if err != nil {
		t.Fatal(err)
	}
	last.Down.Add(8)
	if up, _ := f.Read(0); up != 7 {
		t.Errorf("slot 0 has %d bytes after the file has grown, want 7", up)
	}
}
