package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// udpEcho sends every datagram back and counts the bytes.
type udpEcho struct {
	*net.UDPConn
	n atomic.Int64

	mu   sync.Mutex
	from map[string]bool
}

func (e *udpEcho) bytes() int64 { return e.n.Load() }

// sources returns from how many addresses and ports datagrams have come.
func (e *udpEcho) sources() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.from)
}

func (w *world) udpEcho() *udpEcho { return w.udpAnswers(func([]byte) {}) }

// udpAnswers is an echo that changes the datagram before it sends it back.
func (w *world) udpAnswers(change func(datagram []byte)) *udpEcho {
	w.t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(w.t, err)
	e := &udpEcho{UDPConn: conn, from: map[string]bool{}}
	w.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, maxDatagram)
		for {
			n, from, err := conn.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			e.n.Add(int64(n))
			e.mu.Lock()
			e.from[from.String()] = true
			e.mu.Unlock()
			change(buffer[:n])
			_, _ = conn.WriteToUDP(buffer[:n], from)
		}
	}()
	return e
}

// udpThrough is a socket whose datagrams go through a row's stock client to the echo.
func (w *protocolWorld) udpThrough(r rowInbound, sub Subscription, echo *udpEcho) *net.UDPConn {
	w.t.Helper()
	port, err := FreePort()
	must(w.t, err)
	at := echo.LocalAddr().(*net.UDPAddr)
	w.clientOf(r, sub, map[string]any{
		"listen": "127.0.0.1", "port": port, "protocol": "dokodemo-door",
		"settings": map[string]any{"address": "127.0.0.1", "port": at.Port, "network": "udp"},
	})
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// maxDatagram is the longest datagram of UDP over IPv4, in bytes.
const maxDatagram = 65507

// datagramSizes are the lengths that are sent through every path of datagrams: those around the
// largest datagram of a QUIC connection, around an Ethernet frame, and up to the jumbo frame.
// The clients have limits of their own. Xray's datagrams fit into 8,192 bytes with their header
// (over XUDP 7,526 bytes without it), and those of sing-box and mihomo into 4,096 over Hysteria
// (sing-quic, MaxUDPSize). TestHysteriaDatagrams in xray goes up to 9,000.
func datagramSizes(protocol string) []int {
	sizes := []int{1, 100, 1150, 1170, 1180, 1190, 1200, 1210, 1250, 1300, 1400, 1472, 1500, 2000, 3000, 4000, 6000, 7500}
	switch protocol {
	case "hysteria":
		return sizes[:len(sizes)-2]
	case "wireguard": // in fragments of IP
		return append(sizes, 8192, 8193, 9000)
	}
	return sizes
}

// bounce sends a datagram and waits for its echo. It drops the echoes of datagrams of other
// sizes: those come from earlier tries. It compares every byte, since a datagram that was
// put together wrongly has the right length.
func bounce(conn *net.UDPConn, size int) error { return bounceWithin(conn, size, time.Second) }

// bounceWithin is bounce with another patience.
func bounceWithin(conn *net.UDPConn, size int, patience time.Duration) error {
	sent := make([]byte, size)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}), sent); err != nil {
		return err
	}
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buffer := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return fmt.Errorf("a datagram of %d bytes does not come back: %w", size, err)
		}
		if n == size && !bytes.Equal(buffer[:n], sent) {
			return fmt.Errorf("a datagram of %d bytes comes back with other contents", size)
		}
		if n == size {
			return nil
		}
	}
}
