package datagrams

import (
	"bytes"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func sockets(t testing.TB, network, at string, keep func(p, rest []byte) bool) (*Socket, net.Conn) {
	t.Helper()
	conn, err := net.ListenPacket(network, at)
	if err != nil {
		t.Skipf("NOT RUN: this host has no %s: %v", network, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s, err := NewSocket(conn.(*net.UDPConn), keep)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial(network, conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return s, client
}

// A datagram is read whole, in two parts, with the address of its sender. A deadline and the end
// of the socket end a read that waits.
func TestSocketReadsWhole(t *testing.T) {
	for network, at := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			var kept []byte
			s, client := sockets(t, network, at, func(_, rest []byte) bool { kept = rest; return len(rest) != 7 })
			p := make([]byte, 100)
			for _, size := range []int{0, 1, 99, 100, 101, 5000, 60_000} {
				sent := bytes.Repeat([]byte{byte(size)}, size)
				for _, datagram := range [][]byte{make([]byte, 107), sent} { // the first one is dropped
					if _, err := client.Write(datagram); err != nil {
						t.Fatal(err)
					}
				}
				n, from, err := s.ReadFrom(p)
				if err != nil || from.String() != client.LocalAddr().String() {
					t.Fatalf("%d bytes: from %v: %v", size, from, err)
				}
				if got := append(bytes.Clone(p[:n]), kept...); !bytes.Equal(got, sent) {
					t.Errorf("%d bytes came of %d", len(got), size)
				}
			}
			_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, _, err := s.ReadFrom(p); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %v", err)
			}
			_ = s.SetReadDeadline(time.Time{})
			time.AfterFunc(10*time.Millisecond, func() { _ = s.Close() })
			if _, _, err := s.ReadFrom(p); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// BenchmarkReadFrom compares a Socket with the bare one: the processor time for sending and
// receiving a datagram, as a ratio.
func BenchmarkReadFrom(b *testing.B) {
	s, client := sockets(b, "udp4", "127.0.0.1:0", func(_, _ []byte) bool { return true })
	p := make([]byte, 8192)
	used := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	move := func(conn net.PacketConn) time.Duration {
		before := used()
		for range 200 {
			if _, err := client.Write(p[:1000]); err != nil {
				b.Fatal(err)
			}
			if _, _, err := conn.ReadFrom(p); err != nil {
				b.Fatal(err)
			}
		}
		return used() - before
	}
	var ours, bare time.Duration
	for b.Loop() {
		ours += move(s)
		bare += move(s.UDPConn)
	}
	b.ReportMetric(float64(ours)/float64(bare), "of-bare")
}
