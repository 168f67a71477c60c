package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
)

// systemd hears of the nodes, and the watchdog is fed while the database answers.
func TestSystemdHears(t *testing.T) {
	path := t.TempDir() + "/notify.sock"
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	hear := func(within time.Duration) string {
		t.Helper()
		buffer := make([]byte, 1000)
		if err := socket.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		n, _ := socket.Read(buffer)
		return string(buffer[:n])
	}
	hang := make(chan struct{}, 1)
	answers := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tellSystemd(ctx, func(ctx context.Context, since time.Time) (all, seen int64, err error) {
			select {
			case <-hang:
				<-ctx.Done()
			case err := <-answers:
				return 0, 0, err
			default:
			}
			if ago := time.Since(since); ago < corestore.OfflineAfter || ago > corestore.OfflineAfter+time.Minute {
				t.Errorf("nodes count as seen that were heard of within %s", ago)
			}
			return 2, 1, nil
		})
	}()
	if got, want := hear(10*time.Second), "WATCHDOG=1\nSTATUS=2 nodes, 1 of them online"; got != want {
		t.Errorf("systemd heard %q, want %q", got, want)
	}
	answers <- errors.New("the disk\nis gone")
	for end := time.Now().Add(10 * time.Second); ; {
		if got := hear(time.Second); strings.Contains(got, `STATUS=the database can't be read: "the disk\nis gone"`) && strings.HasPrefix(got, "WATCHDOG=1\n") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("systemd did not hear of the error")
		}
	}
	hang <- struct{}{}
	for end := time.Now().Add(10 * time.Second); hear(300*time.Millisecond) != ""; {
		if time.Now().After(end) {
			t.Fatal("a database that hangs feeds the watchdog")
		}
	}
	cancel()
	<-done
}
