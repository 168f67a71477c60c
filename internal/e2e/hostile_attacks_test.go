package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// answerTime is how long an attacker reads answers.
const answerTime = 40 * time.Millisecond

// attacker makes one kind of attack on one endpoint. Only a failure to connect is an error: the
// worker may do with the connections what it likes.
type attacker struct {
	ctx      context.Context // ends with the round
	endpoint *endpoint
	rand     *rand.Rand
	made     *atomic.Int64
}

var attackKinds = []struct {
	name string
	fits func(*endpoint) bool
	run  func(*attacker) error
}{
	{"half-open handshakes", overTCP, (*attacker).halfOpen},
	{"garbage", overTCP, (*attacker).garbage},
	{"garbage inside TLS", func(d *endpoint) bool { return d.tls && !d.noTCP }, (*attacker).garbageInside},
	{"replays", overTCP, (*attacker).replays},
	{"slow loris", overTCP, (*attacker).slowLoris},
	{"resets", overTCP, (*attacker).resets},
	{"datagrams", func(d *endpoint) bool { return d.udp }, (*attacker).throwDatagrams},
}

func overTCP(d *endpoint) bool { return !d.noTCP }

func (a *attacker) dial() (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(a.ctx, "tcp", a.endpoint.address())
	if err == nil {
		a.made.Add(1)
	}
	return conn, err
}

// say sends data, reads answers for a while and closes the connection.
func say(conn net.Conn, data []byte) {
	_ = conn.SetDeadline(time.Now().Add(answerTime))
	_, _ = conn.Write(data)
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}

// throw sends each data over a new connection.
func (a *attacker) throw(all ...[]byte) error {
	for _, data := range all {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		say(conn, data)
	}
	return nil
}

// halfOpen sends a part of what a real client sends, and keeps the connection open.
func (a *attacker) halfOpen() error {
	const many = 20
	for i := range many {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _ = conn.Write(a.endpoint.flight[:len(a.endpoint.flight)*i/many])
	}
	<-a.ctx.Done()
	return nil
}

func (a *attacker) garbage() error { return a.throw(a.nonsense()...) }

// garbageInside sends garbage inside the TLS connection of an endpoint with TLS.
func (a *attacker) garbageInside() error {
	for i, data := range a.nonsense() {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		config := trustAll()
		config.ServerName = "site.test"
		config.NextProtos = [][]string{{"h2"}, {"http/1.1"}, nil}[i%3]
		_ = conn.SetDeadline(time.Now().Add(10 * answerTime))
		say(tls.Client(conn, config), data)
	}
	return nil
}

// replays sends what Mallory's client sent: unchanged, twice, cut, and with one bit flipped.
func (a *attacker) replays() error {
	flight := a.endpoint.flight
	for range 10 {
		turned := bytes.Clone(flight)
		turned[a.rand.IntN(len(turned))] ^= 1 << a.rand.IntN(8)
		if err := a.throw(flight, flight[:a.rand.IntN(len(flight))], turned); err != nil {
			return err
		}
	}
	return a.throw(slices.Concat(flight, flight), slices.Concat(flight, a.noise(9000)))
}

// slowLoris sends a byte now and then.
func (a *attacker) slowLoris() error {
	conns := make([]net.Conn, 3)
	for i := range conns {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	now := time.NewTicker(30 * time.Millisecond)
	defer now.Stop()
	said := [][]byte{a.endpoint.flight, a.noise(200), []byte("GET /ws HTTP/1.1\r\nHost: " + strings.Repeat("a", 200))}
	for i := 0; ; i++ {
		select {
		case <-a.ctx.Done():
			return nil
		case <-now.C:
		}
		for j, conn := range conns {
			if i < len(said[j]) {
				_, _ = conn.Write(said[j][i : i+1])
			}
		}
	}
}

// resets closes connections with a reset at random moments.
func (a *attacker) resets() error {
	for range 60 {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		_, _ = conn.Write(a.endpoint.flight[:a.rand.IntN(len(a.endpoint.flight)+1)])
		if a.rand.IntN(2) == 0 { // while an answer comes
			_ = conn.SetReadDeadline(time.Now().Add(answerTime))
			_, _ = conn.Read(make([]byte, 1))
		}
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		_ = conn.Close()
	}
	return nil
}

// throwDatagrams sends many kinds of datagrams from a few addresses.
func (a *attacker) throwDatagrams() error {
	kinds := [][]byte{nil}
	for _, size := range []int{1, 15, 16, 33, 100, 1200, 1500, 9000, 65000} {
		kinds = append(kinds, a.noise(size))
	}
	// Long headers of QUIC: with an unknown version, with version 1, and with a connection id of
	// 255 bytes.
	for _, head := range []string{"\xc0\xba\xba\xba\xba\x08", "\xc3\x00\x00\x00\x01\x08", "\xc0\x00\x00\x00\x01\xff"} {
		kinds = append(kinds, append([]byte(head), a.noise(1194)...))
	}
	for _, first := range a.endpoint.datagrams {
		turned := bytes.Clone(first)
		turned[a.rand.IntN(len(turned))] ^= 1 << a.rand.IntN(8)
		kinds = append(kinds, first, turned, first[:len(first)/2])
	}
	for range 10 { // xray-core keeps each new address for two minutes
		conn, err := net.Dial("udp", a.endpoint.address())
		if err != nil {
			return err
		}
		defer conn.Close()
		a.made.Add(1)
		for i := range 3 * len(kinds) {
			if _, err := conn.Write(kinds[i%len(kinds)]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *attacker) noise(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(a.rand.Uint32())
	}
	return b
}

// nonsense returns data as scanners and fuzzers send it: noise of about the lengths at which
// the protocols decide, and the beginnings of other protocols.
func (a *attacker) nonsense() [][]byte {
	var all [][]byte
	for _, size := range []int{0, 1, 15, 16, 17, 18, 31, 33, 49, 50, 55, 58, 61, 255, 1500, 8192, 8193, 16401, 100_000} {
		all = append(all, a.noise(size))
	}
	hello := clientHello()
	longRecord := bytes.Clone(hello)
	binary.BigEndian.PutUint16(longRecord[3:], 0xffff)
	longMessage := bytes.Clone(hello)
	longMessage[6] = 0xff
	all = append(all, hello, hello[:len(hello)/2], hello[:5], longRecord, longMessage, slices.Concat(hello, a.noise(500)))
	const (
		preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
		upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
		early   = "Sec-WebSocket-Protocol: AAAAAAAA\r\n"
	)
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7, nobody\r\n\r\n",
		upgrade + "\r\n" + "\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff" + "mask and more", // a frame of 2^64-1 bytes
		upgrade + early + "\r\n",
		"POST /x/11111111-1111-4111-8111-111111111111/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx",
		"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"GET /" + strings.Repeat("a", 70_000) + " HTTP/1.1\r\n\r\n",
		preface, preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", // with empty settings
		preface + "\xff\xff\xff\x01\x04\x00\x00\x00\x01",
		preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", 500), // resets of streams that do not exist
		"\x05\x01\x00", "PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n", "SSH-2.0-x\r\n",
		"\x00" + string(a.noise(16)) + "\x00\x01\x00\x50\x01\x7f\x00\x00\x01", // VLESS with an unknown UUID
		strings.Repeat("0", 56) + "\r\n\x01\x01\x7f\x00\x00\x01\x00\x50\r\n",  // Trojan with an unknown password
		strings.Repeat("\x00", 64), strings.Repeat("\xff", 300), strings.Repeat("\n", 300), //
	} {
		all = append(all, []byte(text))
	}
	return all
}

// clientHello returns a real ClientHello.
func clientHello() []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		defer theirs.Close()
		config := trustAll()
		config.ServerName, config.NextProtos = "site.test", []string{"h2", "http/1.1"}
		_ = tls.Client(theirs, config).Handshake()
	}()
	b := make([]byte, 16<<10)
	n, _ := ours.Read(b)
	return b[:n]
}
