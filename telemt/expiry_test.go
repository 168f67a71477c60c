package telemt

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// The sessions of a client end when its time is over. A longer time, and a shorter one that is
// not over, end nothing.
func TestExpiry(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		until := func(name string, at time.Time) string {
			return client(name, fmt.Sprintf(`"expiresAt":%q`, at.UTC().Format(time.RFC3339)))
		}
		now := time.Now()
		r.apply(r.service(inbound(1, port, "", client("stays"), until("ends", now.Add(time.Hour)), until("longer", now.Add(time.Minute)))))
		stays, ends, longer := r.dial(port, "stays"), r.dial(port, "ends"), r.dial(port, "longer")
		r.apply(r.service(inbound(1, port, "", client("stays"), until("ends", time.Now().Add(2*time.Second)), until("longer", now.Add(2*time.Hour)))))
		r.exchange(longer, 10, 10)
		r.exchange(ends, 10, 10)
		r.cut(ends, 5*time.Second)
		if _, err := r.tryDial(port, secretOf("ends", 1)); err == nil {
			t.Error("a client whose time is over can connect")
		}
		r.apply(r.service(inbound(1, port, "", client("stays"), until("ends", now.Add(time.Hour)), until("longer", now.Add(3*time.Hour)))))
		again := r.dial(port, "ends")
		r.exchange(again, 10, 10)
		r.exchange(longer, 10, 10)
		r.exchange(stays, 10, 10)
	})
}

// An inbound that listens on :: serves IPv4 too.
func TestListensOnBothVersions(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		if probe, err := net.Listen("tcp6", "[::1]:0"); err != nil {
			t.Skipf("NOT RUN: this host has no IPv6: %v", err)
		} else {
			_ = probe.Close()
		}
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(strings.Replace(inbound(1, port, "", client("alice")), `"127.0.0.1"`, `"::"`, 1)))
		r.exchange(r.dial(port, "alice"), 10, 10)
		conn, err := net.Dial("tcp", fmt.Sprintf("[::1]:%d", port))
		if err != nil {
			t.Fatalf("IPv6: %v", err)
		}
		_ = conn.Close()
	})
}

// A release with a known fault is a warning, and not with an inbound less.
func TestBadReleaseIsAWarning(t *testing.T) {
	for version, bad := range map[string]bool{"3.4.23": false, "3.4.25": true} {
		r := newRig(t, double(t, "version="+version))
		if got := r.engine.Status().Warnings; len(got) > 0 {
			t.Errorf("%s without an inbound: %q", version, got)
		}
		r.apply(r.service(inbound(1, r.port(), "", client("alice"))))
		got := r.engine.Status().Warnings
		if (len(got) > 0) != bad || bad && !strings.Contains(got[0], "install telemt 3.4.23") {
			t.Errorf("%s: %q", version, got)
		}
	}
}
