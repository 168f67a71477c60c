package e2e

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// udpEcho sends every datagram back and counts the bytes.
type udpEcho struct {
	*net.UDPConn
	n atomic.Int64
}

func (e *udpEcho) bytes() int64 { return e.n.Load() }

func (w *world) udpEcho() *udpEcho { return w.udpAnswers(func([]byte) {}) }

// udpAnswers is an echo that changes the datagram before it sends it back.
func (w *world) udpAnswers(change func(datagram []byte)) *udpEcho {
	w.t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(w.t, err)
	e := &udpEcho{UDPConn: conn}
	w.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			e.n.Add(int64(n))
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

// bounce sends a datagram and waits for its echo. It drops echoes of earlier tries.
func bounce(conn *net.UDPConn, size int) error {
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return fmt.Errorf("a datagram of %d bytes does not come back: %w", size, err)
		}
		if n == size {
			return nil
		}
	}
}
