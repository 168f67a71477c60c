package coreclient

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel finds a dead connection within deadAfter, whether something was sent on it or not.
func TestDeadConnectionsAreFoundByTheKernel(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := dialer().DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	if err := raw.Control(func(fd uintptr) {
		for name, option := range map[string][2]int{
			"keepalive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "idle": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, "interval": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			"count": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, "unanswered": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		} {
			value, err := unix.GetsockoptInt(int(fd), option[0], option[1])
			if err != nil {
				t.Error(name, err)
			}
			got[name] = value
		}
	}); err != nil {
		t.Fatal(err)
	}
	if got["keepalive"] != 1 || got["idle"]+got["interval"]*got["count"] != int(deadAfter.Seconds()) || got["unanswered"] != int(deadAfter.Milliseconds()) {
		t.Errorf("the socket has %v", got)
	}
}

// A sandbox that refuses TCP_USER_TIMEOUT keeps no node from Core.
func TestDialWithoutUserTimeout(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	defer func(before func(int, int, int, int) error) { setOption = before }(setOption)
	setOption = func(int, int, int, int) error { return syscall.ENOPROTOOPT }
	conn, err := dialer().DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

// A node whose Core dies without a word speaks to another instance before it counts as offline, also through a
// balancer of layer 4, where pings alone find it.
func TestDeadCoreIsLeftInTime(t *testing.T) {
	const (
		offlineAfter = 90 * time.Second // corestore.OfflineAfter, and docs/api.md (node.offline)
		seenEvery    = 20 * time.Second // corestore.SeenEvery
		held         = 25 * time.Second // a heartbeat, see package agent
	)
	for name, silent := range map[string]time.Duration{
		"by pings":                 held + max(pingAfter+pingWait, seenEvery+pingWait),
		"by the kernel":            held + seenEvery + deadAfter,
		"by pings through a proxy": held + max(pingProxied+pingWait, seenEvery+pingWait),
	} {
		if silent += retryMax; silent >= offlineAfter {
			t.Errorf("%s a node is silent for %s, and counts as offline after %s", name, silent, offlineAfter)
		}
	}
	if pingAfter <= held {
		t.Errorf("each heartbeat that is held for %s costs a ping after %s", held, pingAfter)
	}
}
