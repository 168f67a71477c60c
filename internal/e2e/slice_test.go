package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Two users on two inbounds, one user on both: every byte is counted once, for the right user
// and inbound.
func TestUsageIsExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.protocol(), w.protocol()
	alice, bob := w.subscriber("alice"), w.subscriber("bob")
	w.start()
	want := map[Account]Traffic{}
	for _, use := range []struct {
		sub      Subscription
		link     int
		protocol Protocol
		up, down int64
	}{
		{alice, 0, first, 3_000_001, 5_000_003},
		{alice, 1, second, 700_007, 11},
		{bob, 1, second, 13, 2_000_017},
	} {
		target := w.target()
		client := w.linkClient(use.sub.Links[use.link])
		must(t, client.Exchange(target.Addr(), use.up, use.down))
		must(t, client.Exchange(target.Addr(), 1, 1))
		want[Account{use.sub.UserID, use.protocol.ID}] = target.Traffic()
	}
	w.stopAgent()
	w.wantUsage(want)
	w.wantSubscription(alice, want)
	w.wantOutbound(want)
	w.wantEvents(map[int64]int{alice.UserID: 2, bob.UserID: 1})
}

func (w *world) wantSubscription(sub Subscription, want map[Account]Traffic) {
	w.t.Helper()
	var sum Traffic
	for account, traffic := range want {
		if account.User == sub.UserID {
			sum = Traffic{sum.Up + traffic.Up, sum.Down + traffic.Down}
		}
	}
	var subs []Subscription
	must(w.t, w.core.Do(w.ctx, &subs, "subscription", "list"))
	for _, s := range subs {
		if s.ID == sub.ID && (s.BytesUp != sum.Up || s.BytesDown != sum.Down) {
			w.t.Errorf("subscription %d has %d up and %d down, want %+v", s.ID, s.BytesUp, s.BytesDown, sum)
		}
	}
}

func (w *world) wantOutbound(want map[Account]Traffic) {
	w.t.Helper()
	var sum Traffic
	for _, traffic := range want {
		sum = Traffic{sum.Up + traffic.Up, sum.Down + traffic.Down}
	}
	node, err := w.core.Node(w.ctx, "node")
	must(w.t, err)
	for _, out := range node.Outbounds {
		if out.Tag == "direct" && (out.TrafficBytesUp != sum.Up || out.TrafficBytesDown != sum.Down) {
			w.t.Errorf("outbound direct has %d up and %d down, want %+v", out.TrafficBytesUp, out.TrafficBytesDown, sum)
		}
	}
}

// wantEvents checks that an offline follows every online, and how often each user was online.
func (w *world) wantEvents(visits map[int64]int) {
	w.t.Helper()
	events, err := w.core.Events(w.ctx)
	must(w.t, err)
	balance, onlines := map[int64]int{}, map[int64]int{}
	for _, e := range events {
		if e.IPAddress != "127.0.0.1" || e.Protocol != "vless" {
			w.t.Errorf("event %+v: want protocol vless from 127.0.0.1", e)
		}
		if e.EventType == "online" {
			balance[e.UserID]++
			onlines[e.UserID]++
		} else {
			balance[e.UserID]--
		}
		if balance[e.UserID] < 0 {
			w.t.Errorf("an offline of user %d has no online before it: %+v", e.UserID, events)
		}
	}
	for user, n := range visits {
		if onlines[user] != n || balance[user] != 0 {
			w.t.Errorf("user %d: %d onlines, %d without offline; want %d and 0", user, onlines[user], balance[user], n)
		}
	}
}

func TestTLSAndReality(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	site, cert := w.httpsSite()
	certFile, keyFile := w.writeCert(cert)
	secure := w.protocol("--security", "tls", "--sni", "site.test", "--cert", certFile, "--key", keyFile)
	reality := w.protocol("--security", "reality", "--sni", "site.test", "--dest", site)
	vision := w.protocol("--security", "reality", "--sni", "site.test", "--dest", site, "--flow", "xtls-rprx-vision")
	alice := w.subscriber("alice")
	w.start()
	want := map[Account]Traffic{}
	for i, p := range []Protocol{secure, reality, vision} {
		outbound, err := VLESS(alice.Links[i])
		must(t, err)
		if i == 0 {
			stream := outbound["streamSettings"].(map[string]any)
			stream["tlsSettings"] = map[string]any{"serverName": "site.test", "pinnedPeerCertSha256": pin(cert)}
		}
		target := w.target()
		must(t, w.client(outbound).Exchange(target.Addr(), 1_000_003, 2_000_029))
		want[Account{alice.UserID, p.ID}] = target.Traffic()
	}
	w.stopAgent()
	w.wantUsage(want)
}

// Core is down for a while during traffic: traffic goes on, no row is lost and no row comes
// twice.
func TestCoreAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	protocol := w.protocol()
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	client := w.linkClient(alice.Links[0])
	conn := w.dial(client, target)
	must(t, Exchange(conn, 100_000, 200_000))
	w.core.Kill()
	must(t, Exchange(conn, 300_000, 400_000))
	must(t, client.Exchange(target.Addr(), 500_000, 600_000))
	must(t, w.core.Start(w.ctx))
	must(t, Exchange(conn, 700_000, 800_000))
	must(t, conn.Close())
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, protocol.ID}: target.Traffic()})
}

// The daemon starts without its Core and serves the last good state.
func TestStartsWithoutCore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	protocol := w.protocol()
	alice := w.subscriber("alice")
	w.start()
	w.stopAgent()
	w.core.Kill()
	must(t, w.agent.Start(w.ctx))
	target := w.target()
	client := w.linkClient(alice.Links[0])
	must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 0, 1) }))
	must(t, client.Exchange(target.Addr(), 1_000_000, 2_000_000))
	w.stopAgent() // Core is down, so the rows wait on disk
	must(t, w.core.Start(w.ctx))
	must(t, w.agent.Start(w.ctx))
	w.stopAgent()
	w.wantUsage(map[Account]Traffic{{alice.UserID, protocol.ID}: target.Traffic()})
}

// A daemon that is killed loses nothing that was counted: where its worker ends with it, and where
// the next daemon adopts the worker. Core learns of one visit then.
func TestKilledDaemonLosesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kill   func(*Agent)
		visits int
	}{"with its worker": {(*Agent).Kill, 2}, "alone": {(*Agent).Crash, 1}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			protocol := w.protocol()
			alice := w.subscriber("alice")
			w.start()
			target := w.target()
			client := w.linkClient(alice.Links[0])
			conn := w.dial(client, target)
			must(t, Exchange(conn, 1_000_000, 2_000_000))
			w.waitOnline(1) // presence that the daemon has not read yet dies with a worker
			c.kill(w.agent)
			if c.visits == 1 {
				must(t, Exchange(conn, 300_000, 400_000))
			}
			must(t, w.agent.Start(w.ctx))
			must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 3, 4) }))
			if c.visits == 1 {
				must(t, Exchange(conn, 5, 6))
			}
			_ = conn.Close()
			w.stopAgent()
			w.wantUsage(map[Account]Traffic{{alice.UserID, protocol.ID}: target.Traffic()})
			w.wantEvents(map[int64]int{alice.UserID: c.visits})
		})
	}
}

// A bad configuration is refused with its reason. The running configuration and its open
// connections go on.
func TestBadConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.protocol()
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	conn := w.dial(w.linkClient(alice.Links[0]), target)
	must(t, Exchange(conn, 1000, 1000))

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	busyPort := busy.Addr().(*net.TCPAddr).Port
	shared, err := (&net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		return errors.Join(c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), set)
	}}).Listen(w.ctx, "tcp", "127.0.0.1:0")
	must(t, err)
	defer shared.Close()
	sharedPort := shared.Addr().(*net.TCPAddr).Port
	for _, bad := range []struct {
		name    string
		inbound map[string]any
		code    string
		says    []string
	}{
		{"taken port", vlessInbound(busyPort, nil), "port_in_use", []string{"vless-", strconv.Itoa(busyPort)}},
		{"port that another one would share", vlessInbound(sharedPort, nil), "port_in_use", []string{"vless-", strconv.Itoa(sharedPort)}},
		{"invalid short id", trojanInbound(map[string]any{"network": "tcp", "security": "reality", "realitySettings": map[string]any{
			"dest": "127.0.0.1:1", "serverNames": []string{"site.test"}, "shortIds": []string{"zz"}, "privateKey": base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
		}}), "config_invalid", []string{"trojan-", "shortIds"}},
		{"unknown transport", vlessInbound(0, map[string]any{"network": "carrier-pigeon"}), "config_invalid", []string{"vless-", "carrier-pigeon"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			p, err := w.core.AddInbound(w.ctx, "node", bad.inbound)
			must(t, err)
			must(t, Eventually(w.ctx, func() error {
				n, err := w.core.Node(w.ctx, "node")
				if err != nil {
					return err
				}
				if n.SyncStatus != "failed" || deref(n.LastErrorCode) != bad.code {
					return fmt.Errorf("sync %s, code %s, error %s", n.SyncStatus, deref(n.LastErrorCode), deref(n.LastError))
				}
				for _, word := range append(bad.says, p.Tag, strconv.Itoa(p.Port)) {
					if !strings.Contains(*n.LastError, word) {
						t.Errorf("the error does not name %q: %s", word, *n.LastError)
					}
				}
				if strings.Contains(*n.LastError, "not-a-key") {
					t.Errorf("the error tells the key: %s", *n.LastError)
				}
				return nil
			}))
			must(t, Exchange(conn, 1000, 1000)) // the connection lives on
			var removed any
			must(t, w.core.Do(w.ctx, &removed, "protocol", "remove", strconv.FormatInt(p.ID, 10)))
			w.synced()
		})
	}
	must(t, Exchange(conn, 1000, 1000))
}

// vlessInbound returns an inbound as Xray's own object; port 0 stands for a free port.
func vlessInbound(port int, stream map[string]any) map[string]any {
	if port == 0 {
		port, _ = FreePort()
	}
	in := map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "vless", "settings": map[string]any{"decryption": "none"}}
	if stream != nil {
		in["streamSettings"] = stream
	}
	return in
}

func trojanInbound(stream map[string]any) map[string]any {
	in := vlessInbound(0, stream)
	in["protocol"], in["settings"] = "trojan", map[string]any{}
	return in
}

func with(object map[string]any, name string, value any) map[string]any {
	object[name] = value
	return object
}

// A node whose key was revoked serves on, reports it, and asks Core seldom.
func TestRevokedKey(t *testing.T) {
	w := newWorld(t)
	w.protocol()
	alice := w.subscriber("alice")
	counted, requests := w.countingProxy()
	var added struct{ Code string }
	must(t, w.core.Do(w.ctx, &added, "node", "code", "node"))
	agent, err := NewAgent(w.ctx, w.progs, filepath.Join(w.dir, "revoked"), quickConfig, "--core", counted, "--code", added.Code)
	must(t, err)
	w.agent = agent
	w.start()
	target := w.target()
	conn := w.dial(w.linkClient(alice.Links[0]), target)
	must(t, Exchange(conn, 1000, 1000))

	var removed any
	must(t, w.core.Do(w.ctx, &removed, "node", "remove", "node"))
	must(t, Eventually(w.ctx, func() error {
		s, err := w.agent.Status(w.ctx)
		if err == nil && s.Core.Rejected == "" {
			err = fmt.Errorf("status does not say that the key is rejected")
		}
		return err
	}))
	before := requests.Load()
	watched := 3 * time.Second // 15 heartbeats at the usual interval
	timer := time.After(watched)
	for over := false; !over; {
		select {
		case <-timer:
			over = true
		default:
			must(t, Exchange(conn, 10_000, 10_000)) // it serves on
		}
	}
	// One try of each queue of the outbox may have been under way.
	if n := requests.Load() - before; n > 5 {
		t.Errorf("%d requests in %s after the key was refused", n, watched)
	}
	text, err := w.agent.StatusText(w.ctx)
	must(t, err)
	if !strings.Contains(text, "does not accept this node's key") {
		t.Errorf("status does not say it plainly:\n%s", text)
	}
}

// countingProxy is a plain HTTP proxy before Core that counts requests.
func (w *world) countingProxy() (address string, requests *atomic.Int64) {
	w.t.Helper()
	core, err := url.Parse("https://" + w.core.listen)
	must(w.t, err)
	requests = new(atomic.Int64)
	forward := &httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: trustAll()},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(core) },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		forward.ServeHTTP(rw, r)
	})}
	go func() { _ = server.Serve(l) }()
	w.t.Cleanup(func() { _ = server.Close() })
	return "http://" + l.Addr().String(), requests
}

// One user is added and one is removed while a third one downloads.
func TestUsersChangeUnderTraffic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.protocol()
	stays, goes := w.subscriber("stays"), w.subscriber("goes")
	w.start()
	target := w.target()
	staying, leaving := w.dial(w.linkClient(stays.Links[0]), target), w.linkClient(goes.Links[0])
	leavingConn := w.dial(leaving, target)
	must(t, Exchange(leavingConn, 1000, 1000))
	status, err := w.agent.Status(w.ctx)
	must(t, err)

	download := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				download <- nil
				return
			default:
				if err := Exchange(staying, 10, 1_000_000); err != nil {
					download <- fmt.Errorf("the third user's download: %w", err)
					return
				}
			}
		}
	}()
	comes := w.subscriber("comes")
	var disabled any
	must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", goes.UUID))
	cut := make(chan error, 1)
	go func() {
		var b [1]byte
		_, err := leavingConn.Read(b[:])
		cut <- err
	}()
	select {
	case err := <-cut:
		if err == nil {
			t.Error("the removed user was sent something")
		}
	case <-time.After(Patience):
		t.Error("the removed user's connection was not cut")
	}
	w.synced()
	must(t, w.linkClient(comes.Links[0]).Exchange(target.Addr(), 1000, 1000))
	if err := leaving.Exchange(target.Addr(), 1, 1); err == nil {
		t.Error("the removed user could return")
	}
	must(t, Eventually(w.ctx, func() error { // while the daemon still runs
		events, err := w.core.Events(w.ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.UserID == goes.UserID && e.EventType == "offline" {
				return nil
			}
		}
		return fmt.Errorf("the removed user is not told offline: %+v", events)
	}))
	close(stop)
	must(t, <-download)
	after, err := w.agent.Status(w.ctx)
	must(t, err)
	if after.Engines.Xray.PID != status.Engines.Xray.PID {
		t.Error("the worker was started anew for a change of users")
	}
}
