package telemt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/e2e"
	"nodeagent/internal/namespace"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// On a full disk a change fails and no session ends. When there is space again, changes
// succeed.
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
		// A change that needs a restart fails before telemt is stopped.
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

// fill writes to a file until its disk is full.
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

// A telemt that does not answer for a moment goes on. One that does not answer for
// MaxSilence is replaced.
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

// Bytes that move during many reloads are never counted twice. Those of draining sessions
// are not counted.
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
					_ = e2e.Exchange(conn, 100, 100) // an error means that a reload has ended the session
					_ = conn.Close()
				}
			}
		}()
		for i := range 6 {
			r.apply(r.service(inbound(1, port, domains[i%2], client("alice"))))
		}
		close(stop)
		<-stopped
		r.stop() // reads the counters a last time
		moved := r.target.Traffic()
		counted := r.counted[slot(1, "alice")]
		t.Logf("%+v was moved, %+v counted", moved, counted)
		if counted.Up > uint64(moved.Up) || counted.Down > uint64(moved.Down) || counted.Up == 0 {
			t.Errorf("%+v was counted of %+v", counted, moved)
		}
	})
}

// counters, which start from zero, are added to that.
func TestCrash(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		alice := r.dial(port, "alice")
		r.exchange(alice, 40_000, 60_000)
		r.wantCounted(slot(1, "alice"), 2, 40_001, 60_001)
		pid := r.inbound("mtproto-1").PID
		r.signal(pid, syscall.SIGKILL)
		r.cut(alice, patience)
		r.eventually("it serves again", func() bool {
			in := r.inbound("mtproto-1")
			return in.State == StateReady && in.PID != pid && in.Restarts == 1
		})
		if !r.failedWith(service.FailureCrash) {
			t.Errorf("failures %+v", r.failures)
		}
		again := r.dial(port, "alice")
		r.exchange(again, 50_000, 30_000)
		r.wantCounted(slot(1, "alice"), 4, 90_002, 90_002)
		r.eventually("offline and online are reported", func() bool {
			return r.presenceOf(slot(1, "alice")) == "+127.0.0.1 -127.0.0.1 +127.0.0.1"
		})
	})
}

// A slow telemt is waited for, up to StartTimeout.
func TestSlowTelemt(t *testing.T) {
	r := newRig(t, double(t, "start_delay=1500ms", "api_delay=100ms"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	r.dial(port, "alice")
	r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
	r.dial(port, "bob")
	never := newRig(t, double(t, "start_delay=1h"), func(c *Config) { c.StartTimeout = 300 * time.Millisecond })
	err := never.engine.Apply(t.Context(), never.service(inbound(1, never.port(), "", client("alice"))))
	if err == nil || !strings.Contains(err.Error(), "does not come up") {
		t.Fatalf("got %v", err)
	}
}

// A change of the file that telemt has missed is written again.
func TestMissedChange(t *testing.T) {
	r := newRig(t, double(t, "lose_edits=1"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
	r.dial(port, "bob")
}

// telemt rejects a live change.
func TestRejectedChange(t *testing.T) {
	r := newRig(t, double(t, "refuse_edits=true"))
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	alice := r.dial(port, "alice")
	err := r.engine.Apply(t.Context(), r.service(inbound(1, port, "", client("alice"), client("bob"))))
	if err == nil || !strings.Contains(err.Error(), "the double takes no edits") {
		t.Fatalf("got %v, want telemt's own words", err)
	}
	r.exchange(alice, 10, 10)
}

// users that only the edited file had end.
func TestDrift(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		alice := r.dial(port, "alice")
		file := process.FolderOf(r.state, "mtproto-1").Config()
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		edited := strings.Replace(string(config), "[access.users]\n", fmt.Sprintf("[access.users]\nstranger = '%x'\n", secretOf("stranger", 1)), 1)
		if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		r.eventually("the file is written again", func() bool {
			now, err := os.ReadFile(file)
			return err == nil && !strings.Contains(string(now), "stranger = '")
		})
		r.eventually("it is reported", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.noted) > 0 })
		r.eventually("the stranger can't connect", func() bool { _, err := r.tryDial(port, secretOf("stranger", 1)); return err != nil })
		r.exchange(alice, 10, 10)
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		r.dial(port, "bob")
		r.exchange(alice, 10, 10)
	})
}

// An inbound without a reachable data centre is degraded, which is not a failure.
func TestDegraded(t *testing.T) {
	r := newRig(t, double(t, "unreachable=true"))
	r.apply(r.service(inbound(1, r.port(), "", client("alice"))))
	r.eventually("it is degraded", func() bool { return r.inbound("mtproto-1").State == StateDegraded })
	if len(r.failures) > 0 {
		t.Errorf("failures %+v, want none", r.failures)
	}
}

// fails, with telemt's words.
func TestNoRouteOut(t *testing.T) {
	if !namespace.Inside(t, "true") {
		return
	}
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		first := r.port()
		serves := r.service(inbound(1, first, "", client("alice")))
		r.apply(serves)
		r.dial(first, "alice")
		if os.Getenv("TELEMT_BIN") != binary {
			return // the double needs no route
		}
		routed := r.service(inbound(2, r.port(), "", client("alice")))
		routed.Upstreams = nil
		err := r.engine.Apply(t.Context(), routed)
		if err == nil || !strings.Contains(err.Error(), "No listeners") {
			t.Errorf("got %v, want telemt's words for a host without a route", err)
		}
		r.dial(first, "alice")
	})
}

// When one inbound of a change fails, the whole change is rolled back, also a removal.
func TestPortInUse(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		busy, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close()
		first, taken := r.port(), busy.Addr().(*net.TCPAddr).Port
		r.apply(r.service(inbound(1, first, "", client("alice"))))
		alice := r.dial(first, "alice")
		err = r.engine.Apply(t.Context(), r.service(inbound(2, taken, "", client("alice"))))
		refusal, is := errors.AsType[*service.ApplyError](err)
		if !is || refusal.Code != service.FailurePortInUse || refusal.Tag != "mtproto-2" || int(refusal.Port) != taken {
			t.Fatalf("got %v, want that port %d of mtproto-2 is in use", err, taken)
		}
		r.exchange(alice, 10, 10)
		if status := r.engine.Status(); len(status.Inbounds) != 1 {
			t.Errorf("status %+v", status)
		}
	})
}

// A telemt that says it is up, but does not listen, fails to start.
func TestTelemtThatDoesNotListen(t *testing.T) {
	r := newRig(t, double(t, "deaf=true"))
	err := r.engine.Apply(t.Context(), r.service(inbound(1, r.port(), "", client("alice"))))
	if err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Fatalf("got %v", err)
	}
}

// telemt is installed.
func TestMissingTelemt(t *testing.T) {
	notTelemt := filepath.Join(t.TempDir(), "true")
	if err := os.WriteFile(notTelemt, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ binary, says string }{
		"not there":   {filepath.Join(t.TempDir(), "telemt"), "install"},
		"too old":     {double(t, "version=3.4.13"), "3.4.13"},
		"not telemt":  {notTelemt, "not telemt"},
		"not in PATH": {"telemt-that-nobody-has", "install"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.binary)
			port := r.port()
			r.apply(r.service(inbound(1, port, "", client("alice"))))
			if in := r.inbound("mtproto-1"); in.State != StateFailed || !in.Missing || !strings.Contains(in.Error, c.says) {
				t.Fatalf("status %+v, want a missing telemt that says %q", in, c.says)
			}
			if !filepath.IsAbs(c.binary) {
				return
			}
			double(t) // builds it
			install(t, c.binary)
			r.eventually("it serves once telemt is installed", func() bool { return r.inbound("mtproto-1").State == StateReady })
			if r.inbound("mtproto-1").Missing {
				t.Error("telemt serves, and counts as missing")
			}
			r.dial(port, "alice")
		})
	}
}

// Another process takes the port of the metrics before telemt does, and answers there with
// metrics of its own. telemt is started again with other ports, and no byte is lost.
func TestMetricsOfAStranger(t *testing.T) {
	r := newRig(t, double(t, "start_delay=1s"))
	file := process.FolderOf(r.state, "mtproto-1").Config()
	taken := make(chan net.Listener, 1)
	go func() {
		for t.Context().Err() == nil {
			text, _ := os.ReadFile(file)
			found := metricsListen.FindSubmatch(text)
			if found == nil {
				time.Sleep(time.Millisecond)
				continue
			}
			listener, err := net.Listen("tcp", string(found[1]))
			if err != nil {
				t.Error(err)
			}
			taken <- listener
			return
		}
	}()
	stranger := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "telemt_uptime_seconds 1\ntelemt_user_octets_from_client{user=\"somebody\"} 7\n")
	})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = http.Serve(<-taken, stranger)
	}()
	port := r.port()
	r.apply(r.service(inbound(1, port, "", client("alice"))))
	alice := r.dial(port, "alice")
	r.exchange(alice, 1000, 2000)
	r.wantCounted(slot(1, "alice"), 2, 1001, 2001)
	if !strings.Contains(r.logs.String(), "trying other ports") {
		t.Error("the stranger's metrics were taken for telemt's")
	}
}

// metricsListen matches the address of the metrics in telemt's file.
var metricsListen = regexp.MustCompile(`metrics_listen = ['"]([^'"]+)['"]`)
