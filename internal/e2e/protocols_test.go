package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// serverKey is the key of a Shadowsocks 2022 server.
const serverKey = "AAAAAAAAAAAAAAAAAAAAAA=="

// vnext and servers are the two ways in which Xray's outbounds name a server. Each test gives
// the port and the UUID.
func vnext(port int, user map[string]any) map[string]any {
	return map[string]any{"vnext": []any{map[string]any{"address": "127.0.0.1", "port": port, "users": []any{user}}}}
}

func servers(port int, server map[string]any) map[string]any {
	server["address"], server["port"] = "127.0.0.1", port
	return map[string]any{"servers": []any{server}}
}

// protocolRow is an inbound of the node and how a stock client connects to it.
type protocolRow struct {
	name     string
	protocol string
	settings map[string]any
	stream   map[string]any // of both sides; nil for none
	tls      bool
	outbound func(port int, sub Subscription) map[string]any // settings of the outbound
	more     map[string]any                                  // members beside settings: mux
}

func (r protocolRow) with(name string, more map[string]any) protocolRow {
	r.name, r.more = r.name+" "+name, more
	return r
}

func vlessSettings(port int, sub Subscription) map[string]any {
	return vnext(port, map[string]any{"id": sub.UUID, "encryption": "none"})
}

func ss2022Settings(port int, sub Subscription) map[string]any {
	sum := sha256.Sum256([]byte(sub.UUID))
	return servers(port, map[string]any{"password": serverKey + ":" + base64.StdEncoding.EncodeToString(sum[:16]), "method": "2022-blake3-aes-128-gcm"})
}

func proxySettings(port int, sub Subscription) map[string]any {
	return servers(port, map[string]any{"users": []any{map[string]any{"user": sub.UUID, "pass": sub.UUID}}})
}

var (
	decryption = map[string]any{"decryption": "none"}
	vlessRow   = protocolRow{"vless", "vless", decryption, nil, false, vlessSettings, nil}
	trojanRow  = protocolRow{"trojan over TLS", "trojan", map[string]any{}, nil, true, func(port int, sub Subscription) map[string]any {
		return servers(port, map[string]any{"password": sub.UUID})
	}, nil}
	shadowsocksRow = protocolRow{"shadowsocks AEAD", "shadowsocks", map[string]any{"method": "aes-256-gcm", "network": "tcp,udp"}, nil, false, func(port int, sub Subscription) map[string]any {
		return servers(port, map[string]any{"password": sub.UUID, "method": "aes-256-gcm"})
	}, nil}
	ss2022Row   = protocolRow{"shadowsocks 2022", "shadowsocks", map[string]any{"method": "2022-blake3-aes-128-gcm", "password": serverKey, "network": "tcp,udp"}, nil, false, ss2022Settings, nil}
	hysteriaRow = protocolRow{"hysteria", "hysteria", map[string]any{"version": 2}, map[string]any{"network": "hysteria"}, true, func(port int, _ Subscription) map[string]any {
		return map[string]any{"version": 2, "address": "127.0.0.1", "port": port}
	}, nil}
	socksRow = protocolRow{"socks", "socks", map[string]any{"udp": true}, nil, false, proxySettings, nil}
	mux      = map[string]any{"mux": map[string]any{"enabled": true, "concurrency": 8}}
	xudp     = map[string]any{"mux": map[string]any{"enabled": true, "concurrency": -1, "xudpConcurrency": 8, "xudpProxyUDP443": "allow"}}
)

func transport(name string, settings map[string]any) map[string]any {
	return map[string]any{"network": name, name + "Settings": settings}
}

// masked adds a mask of TCP or UDP to a transport.
func masked(stream map[string]any, kind string, mask map[string]any) map[string]any {
	return with(stream, "finalmask", map[string]any{kind: []any{mask}})
}

// rowInbound is a row and its inbound in Core.
type rowInbound struct {
	protocolRow
	at Protocol
}

// protocolWorld is a node with an inbound for each row, and a certificate.
type protocolWorld struct {
	*world
	serverTLS, clientTLS map[string]any
	rows                 []rowInbound
}

func newProtocolWorld(t *testing.T, rows []protocolRow) *protocolWorld {
	t.Helper()
	w := &protocolWorld{world: newWorld(t)}
	cert := newCert(t)
	certFile, keyFile := w.writeCert(cert)
	w.serverTLS = map[string]any{"serverName": "site.test", "certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}, "alpn": []string{"h3", "h2", "http/1.1"}}
	w.clientTLS = map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert)}
	w.add(rows)
	return w
}

// add adds an inbound for each row.
func (w *protocolWorld) add(rows []protocolRow) {
	w.t.Helper()
	for _, r := range rows {
		port, err := FreePort()
		must(w.t, err)
		in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": r.protocol, "settings": r.settings}
		if stream := secured(r.stream, r.tls, w.serverTLS); stream != nil {
			if r.protocol == "hysteria" {
				stream["hysteriaSettings"] = map[string]any{"version": 2}
			}
			in["streamSettings"] = stream
		}
		p, err := w.core.AddInbound(w.ctx, "node", in)
		must(w.t, err)
		w.rows = append(w.rows, rowInbound{r, p})
	}
}

// clientOf starts a stock client of a row.
func (w *protocolWorld) clientOf(r rowInbound, sub Subscription, more ...any) *Client {
	w.t.Helper()
	outbound := map[string]any{"protocol": r.protocol, "settings": r.outbound(r.at.Port, sub)}
	if stream := secured(r.stream, r.tls, w.clientTLS); stream != nil {
		if r.protocol == "hysteria" {
			stream["hysteriaSettings"] = map[string]any{"version": 2, "auth": sub.UUID}
		}
		outbound["streamSettings"] = stream
		if stream["network"] == "ws" { // a client that sends another address in a header
			stream["wsSettings"] = map[string]any{"path": "/ws", "headers": map[string]any{"X-Forwarded-For": "203.0.113.7"}}
		}
	}
	maps.Copy(outbound, r.more)
	return w.client(outbound, more...)
}

// cutWithin is a few times the second within which a removed client's connections must end.
const cutWithin = 3 * time.Second

// awaitEnd reads until a connection ends.
func awaitEnd(conn net.Conn) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	return ended
}

// notices reports whether a stock client of the row closes a connection that the node has cut.
// A client of Shadowsocks 2022 waits for the other direction, which ends at the next write.
func (r protocolRow) notices() bool {
	method, _ := r.settings["method"].(string)
	return !strings.HasPrefix(method, "2022-")
}

// Every protocol over every transport that works with it: bytes are counted exactly, online and
// offline are reported, and a removed client is cut within a second. No other client is cut,
// though all come from the same address.
func TestProtocolsAndTransports(t *testing.T) {
	t.Parallel()
	w := newProtocolWorld(t, protocolRows())
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	type person struct {
		row    rowInbound
		client *Client
		target *Target
		conn   net.Conn
	}
	open := func(r rowInbound, sub Subscription) person {
		p := person{row: r, client: w.clientOf(r, sub), target: w.target()}
		p.conn = w.dial(p.client, p.target)
		// A stock trojan client fails where its header and a first payload of 8 KiB do not fit one
		// buffer ("buffer is full"), so the first payload is small.
		must(t, Exchange(p.conn, 0, 1))
		must(t, Exchange(p.conn, 300_007, 500_009))
		return p
	}
	var leave, stay []person
	for _, r := range w.rows {
		t.Run(r.name, func(*testing.T) {
			leave, stay = append(leave, open(r, alice)), append(stay, open(r, bob))
		})
	}
	if t.Failed() {
		return
	}
	ends := make([]<-chan error, len(leave))
	for i, p := range leave {
		ends[i] = awaitEnd(p.conn)
	}
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	known := time.Now() // Core then knows of the change; it answers the node's held heartbeat
	for i, p := range leave {
		// The node closes its connection to the target at once. The client may close its connection
		// to the test later: it waits a second, and over mKCP some more.
		if err := Within(w.ctx, time.Until(known.Add(cutWithin)), p.target.allEnded); err != nil {
			t.Errorf("%s: the removed client's connection lives on: %v", p.row.name, err)
			continue
		}
		must(t, p.conn.SetReadDeadline(time.Now().Add(Patience)))
		if !p.row.notices() {
			must(t, Eventually(w.ctx, func() error {
				if _, err := p.conn.Write([]byte{0}); err == nil && len(ends[i]) == 0 {
					return errors.New("the client goes on")
				}
				return nil
			}))
		}
		if err := <-ends[i]; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the removed client's connection is not closed: %v", p.row.name, err)
		}
	}
	w.synced()
	for _, p := range leave {
		again := w.dial(p.client, p.target)
		must(t, again.SetDeadline(time.Now().Add(time.Second)))
		if err := Exchange(again, 0, 1); err == nil {
			t.Errorf("%s: the removed client could return", p.row.name)
		}
	}
	for _, p := range stay {
		if err := Exchange(p.conn, 1000, 1000); err != nil {
			t.Errorf("%s: bob, who stays, was cut: %v", p.row.name, err)
		}
	}
	w.stopAgent()
	want := map[Account]Traffic{}
	for i, p := range leave {
		want[Account{alice.UserID, p.row.at.ID}], want[Account{bob.UserID, p.row.at.ID}] = p.target.Traffic(), stay[i].target.Traffic()
	}
	w.wantUsage(want)
	w.wantVisits(alice, bob)
}

// wantVisits checks that each user was online and offline equally often on each protocol, from
// the client's real address.
func (w *protocolWorld) wantVisits(people ...Subscription) {
	w.t.Helper()
	events, err := w.core.Events(w.ctx)
	must(w.t, err)
	type visit struct {
		user     int64
		protocol string
	}
	online, offline := map[visit]int{}, map[visit]int{}
	for _, e := range events {
		if e.IPAddress != "127.0.0.1" {
			w.t.Errorf("%s from %s: a client picked its own address", e.Protocol, e.IPAddress)
		}
		if e.EventType == "online" {
			online[visit{e.UserID, e.Protocol}]++
		} else {
			offline[visit{e.UserID, e.Protocol}]++
		}
	}
	for _, r := range w.rows {
		for _, sub := range people {
			v := visit{sub.UserID, r.protocol}
			if online[v] == 0 || online[v] != offline[v] {
				w.t.Errorf("%s, user %d: %d online and %d offline", r.protocol, sub.UserID, online[v], offline[v])
			}
		}
	}
}

// Several streams of one connection move bytes at the same time, through every protocol.
func TestMuxStreamsAtOnce(t *testing.T) {
	t.Parallel()
	w := newProtocolWorld(t, slices.DeleteFunc(protocolRows(), func(r protocolRow) bool { return r.more["mux"] == nil }))
	alice := w.subscriber("alice")
	w.start()
	want := map[Account]Traffic{}
	for _, r := range w.rows {
		target, client := w.target(), w.clientOf(r, alice)
		var moving sync.WaitGroup
		for range 6 {
			conn := w.dial(client, target)
			must(t, Exchange(conn, 0, 1))
			moving.Go(func() {
				for i := range int64(40) {
					if err := bounded(conn, i*1009, i*2003); err != nil {
						t.Errorf("%s: exchange %d: %v", r.name, i, err)
						return
					}
				}
			})
		}
		moving.Wait()
		want[Account{alice.UserID, r.at.ID}] = target.Traffic()
	}
	w.stopAgent()
	w.wantUsage(want)
}

// UDP through every protocol that has it: bytes are counted exactly, and no datagram passes
// after the client's removal.
func TestUDP(t *testing.T) {
	t.Parallel()
	w := newProtocolWorld(t, []protocolRow{vlessRow, vlessRow.with("with XUDP", xudp), trojanRow, shadowsocksRow, ss2022Row, hysteriaRow, socksRow})
	alice := w.subscriber("alice")
	w.start()
	want := map[Account]Traffic{}
	var conns []*net.UDPConn
	for _, r := range w.rows {
		t.Run(r.name, func(t *testing.T) {
			echo := w.udpEcho()
			conn := w.udpThrough(r, alice, echo)
			conns = append(conns, conn)
			var sum int64
			for _, size := range datagramSizes(r.protocol) {
				must(t, Eventually(w.ctx, func() error { return bounce(conn, size) }))
			}
			sum = echo.bytes()
			want[Account{alice.UserID, r.at.ID}] = Traffic{sum, sum}
		})
	}
	if t.Failed() {
		return
	}
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	w.synced()
	for i, conn := range conns {
		if err := bounce(conn, 10); err == nil {
			t.Errorf("%s: the removed client's datagrams come back", w.rows[i].name)
		}
	}
	w.stopAgent()
	w.wantUsage(want)
	w.wantVisits(alice)
}

// secured adds TLS to a transport, with the transport's own settings of TLS before settings. It returns
// nil where there is neither.
func secured(stream map[string]any, tls bool, settings map[string]any) map[string]any {
	if stream == nil && !tls {
		return nil
	}
	out := maps.Clone(stream)
	if out == nil {
		out = map[string]any{"network": "raw"}
	}
	if tls {
		own, _ := out["tlsSettings"].(map[string]any)
		settings = maps.Clone(settings)
		maps.Copy(settings, own)
		out["security"], out["tlsSettings"] = "tls", settings
	}
	return out
}

// A connection that its client has closed soon counts as a stream no more.
func TestClosedConnectionsEnd(t *testing.T) {
	t.Parallel()
	w := newProtocolWorld(t, []protocolRow{vlessRow, trojanRow, shadowsocksRow, ss2022Row, hysteriaRow})
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	for _, r := range w.rows {
		t.Run(r.name, func(t *testing.T) {
			client := w.clientOf(r, alice)
			for range 5 {
				conn := w.dial(client, target)
				must(t, Exchange(conn, 0, 1))
				must(t, conn.Close())
			}
			must(t, Eventually(w.ctx, func() error {
				s, err := w.agent.Status(w.ctx)
				if err == nil && s.Engines.Xray.Streams > 0 {
					err = fmt.Errorf("%d streams are open", s.Engines.Xray.Streams)
				}
				return err
			}))
		})
	}
}

// A removed client over REALITY with Vision is cut as over other protocols, and the other client
// is not.
func TestVisionClientsAreCut(t *testing.T) {
	w := newWorld(t)
	site, _ := w.httpsSite()
	vision := w.protocol("--security", "reality", "--sni", "site.test", "--dest", site, "--flow", "xtls-rprx-vision")
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	aliceTarget, bobTarget := w.target(), w.target()
	leaves, stays := w.dial(w.linkClient(alice.Links[0]), aliceTarget), w.dial(w.linkClient(bob.Links[0]), bobTarget)
	must(t, Exchange(leaves, 300_007, 500_009))
	must(t, Exchange(stays, 300_007, 500_009))
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	w.synced()
	must(t, leaves.SetDeadline(time.Now().Add(time.Second)))
	if err := Exchange(leaves, 0, 1); err == nil {
		t.Error("the removed client's connection lives on")
	}
	must(t, Exchange(stays, 1000, 1000))
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, vision.ID}: aliceTarget.Traffic(), {bob.UserID, vision.ID}: bobTarget.Traffic()})
}
