package telemt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/e2e"
	"nodeagent/internal/namespace"
)

// A full disk refuses a change, and touches nobody who is there; with room again
// changes are taken.
func TestFullDisk(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	onEach(t, func(t *testing.T, binary string) {
		disk := t.TempDir()
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) })
		r := newRigIn(t, filepath.Join(disk, "state"), binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		alice, pid := r.dial(port, "alice"), r.inbound("mtproto-1").PID
		filler := filepath.Join(disk, "filler")
		fill(t, filler)
		for range 2 {
			if err := r.engine.Apply(t.Context(), r.service(inbound(1, port, "", client("alice"), clientVersion("bob", 2)))); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("got %v, want %v", err, unix.ENOSPC)
			}
			for range 5 {
				r.engine.Collect(t.Context())
			}
			r.exchange(alice, 10, 10)
		}
		r.dial(port, "bob")
		// What needs a restart finds out before telemt is ended.
		if err := r.engine.Apply(t.Context(), r.service(inbound(1, r.port(), "", client("alice"), client("bob")))); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("got %v, want %v", err, unix.ENOSPC)
		}
		r.exchange(alice, 10, 10)
		if in := r.inbound("mtproto-1"); in.PID != pid || in.State != StateReady {
			t.Errorf("status %+v, want it untouched", in)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		r.apply(r.service(inbound(1, port, "", client("alice"), client("carol"))))
		r.dial(port, "carol")
		r.exchange(alice, 10, 10)
	})
}

// fill writes a file until its disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for size := 4096; size > 0; {
		if _, err := file.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// A telemt that gives no answer for a moment goes on; one that hangs is replaced.
func TestSilence(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, func(c *Config) { c.MaxSilence = 2 * time.Second })
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		alice, pid := r.dial(port, "alice"), r.inbound("mtproto-1").PID
		r.signal(pid, syscall.SIGSTOP)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			r.engine.Collect(ctx)
			cancel()
		}
		r.signal(pid, syscall.SIGCONT)
		r.exchange(alice, 10, 10)
		r.wantCounted(slot(1, "alice"), 2, 11, 11)
		r.signal(pid, syscall.SIGSTOP)
		r.eventually("another telemt serves", func() bool {
			in := r.inbound("mtproto-1")
			return in.PID != pid && in.State == StateReady
		})
		r.dial(port, "alice")
	})
}

// Bytes that move all through a number of reloads are counted once at the most:
// what drains is counted by nobody.
func TestReloadsDoubleNothing(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary, func(c *Config) { c.DrainTimeout = time.Second })
		port := r.port()
		domains := []string{`"tlsDomains":["one.example"]`, `"tlsDomains":["two.example"]`}
		r.apply(r.service(inbound(1, port, domains[1], client("alice"))))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if conn, is := r.tries(port, "alice"); is {
					_ = e2e.Exchange(conn, 100, 100) // cut by a reload, perhaps
					_ = conn.Close()
				}
			}
		}()
		for i := range 6 {
			r.apply(r.service(inbound(1, port, domains[i%2], client("alice"))))
		}
		close(stop)
		<-stopped
		r.stop() // reads a last time
		moved := r.target.Traffic()
		counted := r.counted[slot(1, "alice")]
		t.Logf("%+v was moved, %+v counted", moved, counted)
		if counted.Up > uint64(moved.Up) || counted.Down > uint64(moved.Down) || counted.Up == 0 {
			t.Errorf("%+v was counted of %+v", counted, moved)
		}
	})
}
