package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"nodeagent/internal/otherclients"
)

// otherProgram is a client that is no Xray.
type otherProgram struct {
	name     string
	built    otherclients.Client // zero for Xray
	outbound func(otherRow) outboundOf
	config   func([]entrance) map[string]any
	args     func(folder, file string) []string
}

// entrance is where a client takes connections for an outbound.
type entrance struct {
	name     string
	outbound map[string]any
	socks    int // port
	udp      int // port that leads to the address of the echo; 0 for none
	echo     *net.UDPAddr
}

var otherPrograms = []otherProgram{
	{
		"sing-box", otherclients.SingBox,
		func(r otherRow) outboundOf { return r.singBox }, singBoxConfig,
		func(_, file string) []string { return []string{"run", "-c", file} },
	},
	{
		"mihomo", otherclients.Mihomo,
		func(r otherRow) outboundOf { return r.mihomo }, mihomoConfig,
		func(folder, file string) []string { return []string{"-d", folder, "-f", file} },
	},
}

func singBoxConfig(entrances []entrance) map[string]any {
	var inbounds, outbounds, rules []any
	for _, e := range entrances {
		tags := []string{e.name}
		inbounds = append(inbounds, map[string]any{"type": "socks", "tag": e.name, "listen": "127.0.0.1", "listen_port": e.socks})
		if e.udp != 0 {
			inbounds = append(inbounds, map[string]any{
				"type": "direct", "tag": e.name + " udp", "network": "udp", "listen": "127.0.0.1", "listen_port": e.udp,
				"override_address": e.echo.IP.String(), "override_port": e.echo.Port,
			})
			tags = append(tags, e.name+" udp")
		}
		outbounds = append(outbounds, merged(e.outbound, map[string]any{"tag": e.name}))
		rules = append(rules, map[string]any{"inbound": tags, "action": "route", "outbound": e.name})
	}
	return map[string]any{
		"log": map[string]any{"level": "warn"}, "inbounds": inbounds, "outbounds": outbounds,
		"route": map[string]any{"rules": rules},
	}
}

func mihomoConfig(entrances []entrance) map[string]any {
	var listeners, proxies []any
	for _, e := range entrances {
		listeners = append(listeners, map[string]any{"name": e.name, "type": "socks", "listen": "127.0.0.1", "port": e.socks, "udp": false, "proxy": e.name})
		if e.udp != 0 {
			listeners = append(listeners, map[string]any{
				"name": e.name + " udp", "type": "tunnel", "listen": "127.0.0.1", "port": e.udp, "network": []string{"udp"},
				"target": e.echo.String(), "proxy": e.name,
			})
		}
		proxies = append(proxies, merged(e.outbound, map[string]any{"name": e.name}))
	}
	return map[string]any{
		"mode": "rule", "log-level": "warning", "ipv6": false, "listeners": listeners, "proxies": proxies, "rules": []string{"MATCH,REJECT"},
	}
}

// start runs the program until the test ends, and waits until it listens.
func (p otherProgram) start(w *world, path, name string, entrances []entrance) {
	w.t.Helper()
	raw, err := json.Marshal(p.config(entrances))
	must(w.t, err)
	folder := filepath.Join(w.dir, name)
	must(w.t, os.Mkdir(folder, 0o700))
	file := filepath.Join(folder, "config.json")
	must(w.t, os.WriteFile(file, raw, 0o600))
	client, err := start(filepath.Join(folder, "log"), path, p.args(folder, file)...)
	must(w.t, err)
	w.t.Cleanup(func() {
		client.Kill()
		w.showLog(p.name+" of "+name, client)
	})
	for _, e := range entrances {
		must(w.t, Eventually(w.ctx, func() error {
			if client.ended() {
				w.t.Fatalf("%s ended: %s", p.name, client.Log())
			}
			conn, err := net.Dial("tcp", loopback(e.socks))
			if err != nil {
				return err
			}
			return conn.Close()
		}))
	}
}

// The programs that most clients use beside Xray: through every pair of a protocol and a
// transport that they have, over TCP and UDP, what arrives is what was sent, the bytes are
// counted exactly, and a removed client is cut within a second, while the other one is not. It runs alone, since it measures.
func TestOtherClients(t *testing.T) {
	for _, p := range otherPrograms {
		t.Run(p.name, func(t *testing.T) { p.serves(t, p.built.Path(t)) })
	}
}

// visitor is one client behind one row.
type visitor struct {
	row    rowInbound
	socks  int
	to     string // the destination, empty for the target itself
	target *Target
	echo   *udpEcho
	conn   net.Conn
	udp    *net.UDPConn // nil for none
}

func (p otherProgram) serves(t *testing.T, path string) {
	t.Helper()
	w, rows := newOtherWorld(t, p)
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	leave, stay := p.visit(w, path, "alice", rows, alice), p.visit(w, path, "bob", rows, bob)
	for i, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			leave[i].uses(t)
			stay[i].uses(t)
		})
	}
	if t.Failed() {
		return
	}
	ends := make([]<-chan error, len(leave))
	for i := range leave {
		ends[i] = awaitEnd(leave[i].conn)
	}
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
	known := time.Now()
	for i := range leave {
		leave[i].isCut(t, known, ends[i])
	}
	w.synced()
	var tries sync.WaitGroup
	for i := range leave {
		tries.Go(func() { leave[i].staysOut(t) })
	}
	tries.Wait()
	for i := range stay {
		if err := exchangeContents(stay[i].conn, 1000, 1000); err != nil {
			t.Errorf("%s: bob, who stays, was cut: %v", stay[i].row.name, err)
		}
	}
	w.stopAgent()
	want := map[Account]Traffic{}
	for i := range rows {
		want[Account{alice.UserID, leave[i].row.at.ID}], want[Account{bob.UserID, stay[i].row.at.ID}] = leave[i].traffic(), stay[i].traffic()
	}
	w.wantUsage(want)
	w.wantVisits(alice, bob)
}

// newOtherWorld has an inbound for each row that the program has an outbound for.
func newOtherWorld(t *testing.T, p otherProgram) (*protocolWorld, []otherRow) {
	t.Helper()
	w := &protocolWorld{world: newWorld(t)}
	cert := newCert(t)
	certFile, keyFile := w.writeCert(cert)
	site, _ := w.httpsSite()
	plain, overTLS, reality := securities(t, certFile, keyFile, pin(cert), site)
	var rows []otherRow
	for _, r := range otherRows(t, plain, overTLS, reality) {
		if p.outbound(r) == nil {
			continue
		}
		port, err := FreePort()
		must(t, err)
		in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": r.protocol, "settings": r.settings}
		if r.stream != nil {
			in["streamSettings"] = r.stream
		}
		var flags []string
		if r.flow != "" {
			flags = []string{"--flow", r.flow}
		}
		at, err := w.core.AddInbound(w.ctx, "node", in, flags...)
		must(t, err)
		rows, w.rows = append(rows, r), append(w.rows, rowInbound{r.protocolRow, at})
	}
	return w, rows
}

// visit starts one program that has an entrance to every row.
func (p otherProgram) visit(w *protocolWorld, path, name string, rows []otherRow, sub Subscription) []visitor {
	w.t.Helper()
	visitors, entrances := make([]visitor, len(rows)), make([]entrance, len(rows))
	for i, r := range rows {
		v, e := &visitors[i], &entrances[i]
		v.row, v.target, v.echo = w.rows[i], w.newContentTarget(), w.udpEcho()
		var err error
		e.name, e.outbound, e.echo = r.name, p.outbound(r)(v.row.at.Port, sub), v.echo.LocalAddr().(*net.UDPAddr)
		e.socks, err = FreePort()
		must(w.t, err)
		v.socks = e.socks
		if r.tcpOnly {
			continue
		}
		e.udp, err = FreePort()
		must(w.t, err)
		v.udp, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: e.udp})
		must(w.t, err)
		w.t.Cleanup(func() { _ = v.udp.Close() })
	}
	p.start(w.world, path, name, entrances)
	return visitors
}

// dial connects to the target. A program may answer only when it has reached the node.
func (v *visitor) dial(ctx context.Context, patience time.Duration) (net.Conn, error) {
	dialer, err := proxy.SOCKS5("tcp", loopback(v.socks), nil, proxy.Direct)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", cmp.Or(v.to, v.target.Addr()))
}

// uses opens the connection that stays open, and moves bytes over it and in datagrams.
func (v *visitor) uses(t *testing.T) {
	t.Helper()
	// A program may listen before it forwards (mihomo does): the first connection is tried again.
	must(t, Within(t.Context(), Patience/3, func() (err error) {
		if v.conn, err = v.dial(t.Context(), Patience/3); err != nil {
			return err
		}
		if err = errors.Join(v.conn.SetDeadline(time.Now().Add(Patience/3)), exchangeContents(v.conn, 0, 1)); err != nil {
			_ = v.conn.Close()
		}
		return err
	}))
	must(t, v.conn.SetDeadline(time.Now().Add(Patience)))
	must(t, exchangeContents(v.conn, 300_007, 500_009))
	must(t, v.conn.SetDeadline(time.Time{}))
	if v.udp == nil {
		return
	}
	for _, size := range datagramSizes(v.row.protocol) {
		must(t, Eventually(t.Context(), func() error { return bounce(v.udp, size) }))
	}
}

// traffic returns what the servers behind the client counted.
func (v *visitor) traffic() Traffic {
	n := v.echo.bytes()
	return v.target.Traffic().plus(Traffic{n, n})
}

// isCut checks that the node ends the client's connection soon after Core knows of the removal,
// and that the client's own end follows.
func (v *visitor) isCut(t *testing.T, known time.Time, end <-chan error) {
	t.Helper()
	if err := Within(t.Context(), time.Until(known.Add(cutWithin)), v.target.allEnded); err != nil {
		t.Errorf("%s: the removed client's connection lives on: %v", v.row.name, err)
		return
	}
	must(t, v.conn.SetDeadline(time.Now().Add(Patience)))
	// A program may wait for its own side of the connection, which ends at the next write.
	must(t, Eventually(t.Context(), func() error {
		if _, err := v.conn.Write([]byte{0}); err == nil && len(end) == 0 {
			return errors.New("the client goes on")
		}
		return nil
	}))
	if err := <-end; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the removed client's connection is not closed: %v", v.row.name, err)
	}
}

// staysOut checks that a removed client is served no more. It may run beside others.
func (v *visitor) staysOut(t *testing.T) {
	if v.udp != nil {
		if err := bounce(v.udp, 10); err == nil {
			t.Errorf("%s: the removed client's datagrams come back", v.row.name)
		}
	}
	again, err := v.dial(t.Context(), time.Second)
	if err != nil {
		return
	}
	defer again.Close()
	_ = again.SetDeadline(time.Now().Add(time.Second))
	if err := exchangeContents(again, 0, 1); err == nil {
		t.Errorf("%s: the removed client could return", v.row.name)
	}
}

// mihomo as a peer of a WireGuard inbound. sing-box is none here: what its build tag
// with_wireguard needs is not in the module proxy. It runs alone, since it measures.
func TestOtherClientsOfWireGuard(t *testing.T) {
	p := otherPrograms[1]
	path := p.built.Path(t)
	n := newWireGuardNode(t)
	n.target = n.newContentTarget()
	n.have("alice", "bob")
	visit := func(name string) (visitor, Traffic) {
		v := visitor{row: rowInbound{protocolRow: protocolRow{name: "wireguard", protocol: "wireguard"}}, target: n.target, echo: n.echo, to: somewhere}
		var err error
		e := entrance{name: name, echo: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53}, outbound: map[string]any{
			"type": "wireguard", "ip": n.address(name), "private-key": wireGuardText(n.keys[name].Bytes()), "udp": true, "mtu": 1420,
			"server": "127.0.0.1", "port": n.port, "public-key": wireGuardText(n.server.PublicKey().Bytes()), "allowed-ips": []string{"0.0.0.0/0"},
		}}
		e.socks, err = FreePort()
		must(t, err)
		e.udp, err = FreePort()
		must(t, err)
		v.socks = e.socks
		v.udp, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: e.udp})
		must(t, err)
		t.Cleanup(func() { _ = v.udp.Close() })
		p.start(n.world, path, name, []entrance{e})
		before := v.traffic()
		v.uses(t)
		after := v.traffic()
		return v, Traffic{after.Up - before.Up, after.Down - before.Down}
	}
	alice, ofAlice := visit("alice")
	bob, ofBob := visit("bob")
	n.have("bob")
	removed := time.Now()
	n.streams(2) // bob's; alice's client is not told: her session is removed first
	if took := time.Since(removed); took > cutWithin {
		t.Errorf("alice's streams ended %s after her removal", took)
	}
	alice.staysOut(t)
	before := bob.traffic()
	must(t, exchangeContents(bob.conn, 1000, 1000))
	after := bob.traffic()
	ofBob = ofBob.plus(Traffic{after.Up - before.Up, after.Down - before.Down})
	n.stopAgent()
	n.scripted.mu.Lock()
	defer n.scripted.mu.Unlock()
	for user, moved := range map[int64]Traffic{1: ofAlice, 2: ofBob} {
		if got := n.scripted.usage[user]; got != moved {
			t.Errorf("user %d is billed %+v, and moved %+v", user, got, moved)
		}
	}
}
