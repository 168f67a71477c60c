package counters

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
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
