package e2e

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A peer of a WireGuard inbound is known by its address inside the tunnel, also where the
// tunnel's datagrams are masked.
func TestWireGuard(t *testing.T) {
	for name, stream := range map[string]map[string]any{
		"plain":  nil,
		"masked": masked(map[string]any{}, "udp", map[string]any{"type": "salamander", "settings": map[string]any{"password": "hush-hush"}}),
	} {
		t.Run(name, func(t *testing.T) { wireGuardCounts(t, stream) })
	}
}

// wireGuardCounts moves bytes of two peers through an inbound whose datagrams have the
// stream settings, nil for none.
func wireGuardCounts(t *testing.T, stream map[string]any) {
	t.Helper()
	w := newWorld(t)
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	server, aliceKey, bobKey := newWireGuardKey(t), newWireGuardKey(t), newWireGuardKey(t)
	port, err := FreePort()
	must(t, err)
	peer := func(sub Subscription, key *ecdh.PrivateKey, address string) map[string]any {
		return map[string]any{"email": sub.UUID, "publicKey": wireGuardText(key.PublicKey().Bytes()), "allowedIPs": []string{address + "/32"}}
	}
	in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "wireguard", "settings": map[string]any{
		"secretKey": wireGuardText(server.Bytes()), "mtu": 1420, "noKernelTun": true,
		"peers": []any{peer(alice, aliceKey, "10.9.0.2"), peer(bob, bobKey, "10.9.0.3")},
	}}
	if stream != nil {
		in["streamSettings"] = stream
	}
	p, err := w.core.AddInbound(w.ctx, "node", in)
	must(t, err)
	target := w.target()
	w.redirectTo(target) // the network stack in the tunnel does not let connections go to loopback
	w.start()
	want := map[Account]Traffic{}
	for _, who := range []struct {
		sub     Subscription
		key     *ecdh.PrivateKey
		address string
	}{{alice, aliceKey, "10.9.0.2"}, {bob, bobKey, "10.9.0.3"}} {
		before := target.Traffic()
		out := map[string]any{"protocol": "wireguard", "settings": map[string]any{
			"secretKey": wireGuardText(who.key.Bytes()), "address": []string{who.address + "/32"}, "mtu": 1420, "noKernelTun": true,
			"peers": []any{map[string]any{"endpoint": net.JoinHostPort("127.0.0.1", itoa(port)), "publicKey": wireGuardText(server.PublicKey().Bytes())}},
		}}
		if stream != nil {
			out["streamSettings"] = stream
		}
		client := w.client(out)
		must(t, client.Exchange("192.0.2.1:80", 100_003, 200_009))
		after := target.Traffic()
		want[Account{who.sub.UserID, p.ID}] = Traffic{after.Up - before.Up, after.Down - before.Down}
	}
	w.stopAgent()
	w.wantUsage(want)
	events, err := w.core.Events(w.ctx)
	must(t, err)
	if len(events) != 4 || events[0].Protocol != "wireguard" || events[0].IPAddress != "10.9.0.2" {
		t.Errorf("events %+v", events)
	}
}

// redirectTo makes the node's outbound connect to the target, whatever the destination.
func (w *world) redirectTo(target *Target) {
	w.t.Helper()
	raw, err := json.Marshal(map[string]any{"tag": "direct", "protocol": "freedom", "settings": map[string]any{
		"redirect": target.Addr(), "finalRules": []any{map[string]any{"action": "allow"}},
	}})
	must(w.t, err)
	must(w.t, w.core.AddOutbound(w.ctx, "node", raw))
}

func newWireGuardKey(tb testing.TB) *ecdh.PrivateKey {
	tb.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func wireGuardText(key []byte) string { return base64.StdEncoding.EncodeToString(key) }

// wireGuardNode is a node with a WireGuard inbound under a scripted Core, because no flags of
// node-core change peers. Connections that leave the tunnel go to the target and the echo,
// whatever their destination.
type wireGuardNode struct {
	*scriptedWorld
	server *ecdh.PrivateKey
	port   int
	target *Target
	echo   *udpEcho
	keys   map[string]*ecdh.PrivateKey // by name; the order of the names gives the addresses
}

func newWireGuardNode(t *testing.T) *wireGuardNode {
	t.Helper()
	n := &wireGuardNode{scriptedWorld: newScriptedWorld(t, quickConfig), server: newWireGuardKey(t), keys: map[string]*ecdh.PrivateKey{}}
	var err error
	n.port, err = FreePort()
	must(t, err)
	n.target, n.echo = n.world.target(), n.udpEcho()
	for _, name := range []string{"alice", "bob", "carol"} {
		n.keys[name] = newWireGuardKey(t)
	}
	return n
}

func (n *wireGuardNode) address(name string) string {
	return map[string]string{"alice": "10.9.0.2", "bob": "10.9.0.3", "carol": "10.9.0.4"}[name]
}

// have makes the names the inbound's peers.
func (n *wireGuardNode) have(names ...string) { n.t.Helper(); n.haveWith(nil, names...) }

// haveWith adds members to Xray's configuration.
func (n *wireGuardNode) haveWith(more map[string]any, names ...string) {
	n.t.Helper()
	peers, clients := []any{}, map[string]wire.ClientRef{}
	for _, name := range names {
		peers = append(peers, map[string]any{"email": name, "publicKey": wireGuardText(n.keys[name].PublicKey().Bytes()), "allowedIPs": []string{n.address(name) + "/32"}})
		clients[name] = wire.ClientRef{UserID: map[string]int64{"alice": 1, "bob": 2, "carol": 3}[name]}
	}
	native := map[string]any{
		"inbounds": []any{map[string]any{"tag": "wireguard-1", "listen": "127.0.0.1", "port": n.port, "protocol": "wireguard", "settings": map[string]any{
			"secretKey": wireGuardText(n.server.Bytes()), "mtu": 1420, "peers": peers,
		}}},
		"outbounds": []any{
			map[string]any{"tag": "tcp", "protocol": "freedom", "settings": map[string]any{"redirect": n.target.Addr()}},
			map[string]any{"tag": "udp", "protocol": "freedom", "settings": map[string]any{"redirect": n.echo.LocalAddr().String()}},
		},
		"routing": map[string]any{"rules": []any{map[string]any{"network": "udp", "outboundTag": "udp"}}},
	}
	maps.Copy(native, more)
	n.serve(clients, native)
}

// peer starts a stock client of a peer; more are inbounds beside its SOCKS inbound.
func (n *wireGuardNode) peer(name string, more ...any) *Client {
	n.t.Helper()
	return n.client(map[string]any{"protocol": "wireguard", "settings": map[string]any{
		"secretKey": wireGuardText(n.keys[name].Bytes()), "address": []string{n.address(name) + "/32"}, "mtu": 1420, "noKernelTun": true,
		"peers": []any{map[string]any{"endpoint": net.JoinHostPort("127.0.0.1", itoa(n.port)), "publicKey": wireGuardText(n.server.PublicKey().Bytes())}},
	}}, more...)
}

// streams waits until the worker has that many open streams.
func (n *wireGuardNode) streams(want int64) {
	n.t.Helper()
	must(n.t, Eventually(n.ctx, func() error {
		status, err := n.agent.Status(n.ctx)
		if err == nil && status.Engines.Xray.Streams != want {
			err = fmt.Errorf("%d streams are open, want %d", status.Engines.Xray.Streams, want)
		}
		return err
	}))
}

// refused tries for a while to move bytes: a peer that the node does not know gets no answer.
func (n *wireGuardNode) refused(c *Client, who string) {
	n.t.Helper()
	conn, err := c.Dial(somewhere)
	if err != nil {
		return
	}
	defer conn.Close()
	must(n.t, conn.SetDeadline(time.Now().Add(2*time.Second)))
	if err := Exchange(conn, 1, 1); err == nil {
		n.t.Errorf("%s was let in", who)
	}
}

// somewhere is an address on which nothing listens; the outbound leads to the target.
const somewhere = "192.0.2.1:80"

// Peers are added and removed while others move bytes. A removed peer is cut at once and cannot
// connect again, no other peer notices, and the worker's memory does not grow. Core sends whole
// documents, or deltas, which are applied as changes of clients.
func TestWireGuardPeersComeAndGo(t *testing.T) {
	t.Run("by documents", func(t *testing.T) { wireGuardPeersComeAndGo(t, false) })
	t.Run("by deltas", func(t *testing.T) { wireGuardPeersComeAndGo(t, true) })
}

func wireGuardPeersComeAndGo(t *testing.T, byDelta bool) {
	t.Helper()
	n := newWireGuardNode(t)
	n.scripted.differs = byDelta
	n.have("alice", "bob")
	alice, bob := n.peer("alice"), n.peer("bob")
	connect := func(c *Client) net.Conn {
		t.Helper()
		conn, err := c.Dial(somewhere)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		must(t, Exchange(conn, 100_003, 200_009))
		return conn
	}
	connect(alice)
	bobConn := connect(bob)
	n.streams(2)
	stop := n.keepsMoving(bobConn)
	n.have("bob", "carol")
	applied := time.Now()
	n.streams(1) // Alice's client is not told: her WireGuard session is removed first
	t.Logf("alice is cut %d ms after the change was applied", time.Since(applied).Milliseconds())
	stop()
	connect(n.peer("carol"))
	n.refused(alice, "alice, who was removed,")
	status, err := n.agent.Status(t.Context())
	must(t, err)
	before := status.Engines.Xray.Goroutines
	for range 20 {
		n.have("alice", "bob", "carol")
		n.have("bob", "carol")
		must(t, Exchange(bobConn, 1000, 1000))
	}
	must(t, Eventually(t.Context(), func() error {
		status, err := n.agent.Status(t.Context())
		if err == nil && status.Engines.Xray.Goroutines > before+10 {
			err = fmt.Errorf("%d goroutines after 40 changes, %d before", status.Engines.Xray.Goroutines, before)
		}
		return err
	}))
	if status.Engines.Xray.Restarts != 0 {
		t.Error("the worker was replaced")
	}
	n.have("alice", "bob", "carol")
	connect(n.peer("alice"))
	must(t, Exchange(bobConn, 1, 1))
	n.scripted.mu.Lock()
	defer n.scripted.mu.Unlock()
	if changes := strings.Count(n.agent.Log(), "change of clients applied"); byDelta && (n.scripted.deltas != 42 || changes != 42) {
		t.Errorf("of 42 changes, %d were sent as deltas, and %d applied as changes of clients", n.scripted.deltas, changes)
	}
}

// keepsMoving moves bytes over a connection without a pause, until the function that it returns is called,
// which checks that the connection never stopped.
func (n *wireGuardNode) keepsMoving(conn net.Conn) (stop func()) {
	n.t.Helper()
	end, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for rounds := 0; ; rounds++ {
			if err := Exchange(conn, 10_000, 10_000); err != nil {
				failed <- fmt.Errorf("round %d: %w", rounds, err)
				return
			}
			select {
			case <-end:
				failed <- nil
				return
			default:
			}
		}
	}()
	return func() {
		n.t.Helper()
		close(end)
		must(n.t, <-failed)
	}
}

// Another MTU makes another device. The peers connect to it again, and nothing of the old device
// stays.
func TestWireGuardDeviceIsReplaced(t *testing.T) {
	n := newWireGuardNode(t)
	n.have("bob")
	bob := n.peer("bob")
	must(t, bob.Exchange(somewhere, 1000, 1000))
	n.server = newWireGuardKey(t)
	n.have("bob")
	n.refused(bob, "a client of the old key")
	must(t, n.peer("bob").Exchange(somewhere, 1000, 1000))
}

// UDP passes through the tunnel and is counted for the peer.
func TestWireGuardUDP(t *testing.T) {
	n := newWireGuardNode(t)
	n.have("bob")
	port, err := FreePort()
	must(t, err)
	n.peer("bob", map[string]any{
		"listen": "127.0.0.1", "port": port, "protocol": "dokodemo-door", "settings": map[string]any{"address": "192.0.2.1", "port": 53, "network": "udp"},
	})
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	must(t, err)
	defer conn.Close()
	must(t, Eventually(t.Context(), func() error { return bounce(conn, 500) }))
	must(t, bounce(conn, 1200))
	moved := n.echo.bytes()
	n.stopAgent()
	n.scripted.mu.Lock()
	defer n.scripted.mu.Unlock()
	if got := n.scripted.usage[2]; got.Up != moved || got.Down != moved {
		t.Errorf("bob is billed %+v, the echo had %d bytes", got, moved)
	}
}

// A worker that takes over, or comes after one that was killed, begins the handshake with the clients
// that still send: they come back long before they notice by themselves, which takes them 15 seconds.
// The test logs for how long nothing came back.
func TestWireGuardOutlivesWorkers(t *testing.T) {
	const notices = 15 * time.Second // KEEPALIVE_TIMEOUT and REKEY_TIMEOUT of the protocol
	n := newWireGuardNode(t)
	n.have("bob")
	port, err := FreePort()
	must(t, err)
	bob := n.peer("bob", map[string]any{
		"listen": "127.0.0.1", "port": port, "protocol": "dokodemo-door", "settings": map[string]any{"address": "192.0.2.1", "port": 53, "network": "udp"},
	})
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	must(t, err)
	defer conn.Close()
	must(t, Eventually(n.ctx, func() error { return bounce(conn, 500) }))
	for _, end := range []struct {
		name string
		do   func(pid int)
	}{
		{"a takeover", func(int) {
			n.haveWith(map[string]any{"observatory": map[string]any{"subjectSelector": []string{"tcp"}, "probeURL": "http://127.0.0.1:9/", "probeInterval": "1h"}}, "bob")
		}},
		{"a crash", func(pid int) { must(t, syscall.Kill(pid, syscall.SIGKILL)) }},
	} {
		must(t, Eventually(n.ctx, func() error {
			noted, err := os.ReadFile(filepath.Join(n.agent.file("run"), "wireguard-peers"))
			if err == nil && !bytes.Contains(noted, n.keys["bob"].PublicKey().Bytes()) {
				err = errors.New("it is not noted where bob is")
			}
			return err
		}))
		status, err := n.agent.Status(n.ctx)
		must(t, err)
		end.do(status.Engines.Xray.PID)
		last := time.Now()
		must(t, Eventually(n.ctx, func() error {
			now, err := n.agent.Status(n.ctx)
			if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.PID == status.Engines.Xray.PID) {
				err = errors.New("the worker before serves")
			}
			if bounceWithin(conn, 100, 20*time.Millisecond) == nil && err != nil {
				last = time.Now()
			}
			return err
		}))
		must(t, Within(n.ctx, notices-3*time.Second, func() error { return bounceWithin(conn, 500, 20*time.Millisecond) }))
		t.Logf("over %s, nothing came back for %d ms", end.name, time.Since(last).Milliseconds())
		must(t, Within(n.ctx, notices, func() error { return bob.Exchange(somewhere, 1000, 1000) }))
	}
}
