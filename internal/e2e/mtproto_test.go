package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/counters"
	"nodeagent/internal/telegram"
)

// telemts runs a test with the telemt double, and with the real telemt where TELEMT_BIN names
// it.
func telemts(t *testing.T, test func(t *testing.T, binary string)) {
	t.Helper()
	t.Run("double", func(t *testing.T) {
		binary := filepath.Join(t.TempDir(), "telemt")
		out, err := exec.Command("go", "build", "-o", binary, "nodeagent/internal/telemtdouble").CombinedOutput()
		if err != nil {
			t.Fatalf("build the double: %v\n%s", err, out)
		}
		test(t, binary)
	})
	t.Run("real", func(t *testing.T) {
		binary := os.Getenv("TELEMT_BIN")
		if binary == "" {
			t.Skip("NOT RUN: the real telemt is not here; build it (cargo build --release in its repository) and name it in TELEMT_BIN")
		}
		test(t, binary)
	})
}

// centre stands in for Telegram and forwards to a target, which counts.
func (w *world) centre() *Target {
	w.t.Helper()
	target := w.target()
	centre, err := telegram.NewCentre(target.Serve)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, centre.Close()) })
	must(w.t, w.core.SetCentre(w.ctx, "node", centre.Addr()))
	return target
}

func (w *world) configure(lines string) {
	w.t.Helper()
	file, err := os.OpenFile(w.agent.file("config.toml"), os.O_APPEND|os.O_WRONLY, 0)
	must(w.t, err)
	_, err = file.WriteString(lines)
	must(w.t, err)
	must(w.t, file.Close())
}

// read waits until the agent has read these counters from telemt.
func (w *world) read(want ...Traffic) {
	w.t.Helper()
	file, err := counters.Open(w.agent.file("run/counters"))
	must(w.t, err)
	defer file.Close()
	for _, traffic := range want {
		must(w.t, Eventually(w.ctx, func() error {
			for slot := range uint32(100) {
				if up, down := file.Read(slot); up == uint64(traffic.Up) && down == uint64(traffic.Down) {
					return nil
				}
			}
			return fmt.Errorf("no counter has %+v", traffic)
		}))
	}
}

func (w *world) telegramClient(sub Subscription, p Protocol) net.Conn {
	w.t.Helper()
	link, err := sub.SecureLink(p.Port)
	must(w.t, err)
	conn, err := telegram.DialLink(link, 2)
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// An MTProto client works from the link to Core's rows: its bytes are counted exactly, beside
// Xray's; its online and offline are reported; it is cut when its subscription is disabled. A
// daemon that is killed loses nothing that it had read.
func TestMTProto(t *testing.T) {
	t.Parallel()
	telemts(t, func(t *testing.T, binary string) {
		w := newWorld(t)
		w.configure(fmt.Sprintf("[telemt]\nbinary = %q\n", binary))
		vless := w.protocol()
		mtproto, err := w.core.AddMTProto(w.ctx, "node", "--tls-domain", "site.test")
		must(t, err)
		target := w.centre()
		alice, bob := w.subscriber("alice"), w.subscriber("bob")
		w.start()
		conn, bobs := w.telegramClient(alice, mtproto), w.telegramClient(bob, mtproto)
		must(t, Exchange(conn, 50_007, 60_011))
		must(t, Exchange(bobs, 17, 40_009))
		direct := w.target()
		must(t, w.linkClient(alice.Links[0]).Exchange(direct.Addr(), 1000, 2000))
		w.read(Traffic{50_023, 60_011}, Traffic{33, 40_009})
		must(t, Eventually(w.ctx, func() error { // the daemon reads the bytes before it asks for the sessions
			events, err := w.core.Events(w.ctx)
			for _, who := range []Subscription{alice, bob} {
				if !slices.ContainsFunc(events, func(e Event) bool { return e.UserID == who.UserID && e.Protocol == "mtproto" }) {
					err = errors.Join(err, fmt.Errorf("user %d is not told online", who.UserID))
				}
			}
			return err
		}))
		w.agent.Kill()
		must(t, w.agent.Start(w.ctx))
		must(t, Eventually(w.ctx, func() error {
			conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(mtproto.Port)))
			if err == nil {
				_ = conn.Close()
			}
			return err
		}))
		again := w.telegramClient(alice, mtproto)
		must(t, Exchange(again, 100, 200))
		var disabled any
		must(t, w.core.Do(w.ctx, &disabled, "subscription", "disable", alice.UUID))
		must(t, again.SetReadDeadline(time.Now().Add(Patience)))
		if _, err := again.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("the disabled user's session was not cut: %v", err)
		}
		w.synced()
		w.stopAgent()
		usage, err := w.core.Usage(w.ctx)
		must(t, err)
		on := func(s Subscription) Traffic { return usage[Account{s.UserID, mtproto.ID}] }
		have := Traffic{on(alice).Up + on(bob).Up, on(alice).Down + on(bob).Down}
		if have != target.Traffic() || on(bob) != (Traffic{33, 40_009}) {
			t.Errorf("Core has %+v, of which bob %+v; the centre counted %+v", have, on(bob), target.Traffic())
		}
		if usage[Account{alice.UserID, vless.ID}] != direct.Traffic() {
			t.Errorf("Core has %+v over VLESS, want %+v", usage[Account{alice.UserID, vless.ID}], direct.Traffic())
		}
		w.wantMTProtoEvents(alice, bob)
	})
}

func (w *world) wantMTProtoEvents(people ...Subscription) {
	w.t.Helper()
	events, err := w.core.Events(w.ctx)
	must(w.t, err)
	for _, who := range people {
		online, offline := 0, 0
		for _, e := range events {
			if e.UserID != who.UserID || e.Protocol != "mtproto" {
				continue
			}
			if e.EventType == "online" {
				online++
			} else {
				offline++
			}
			if e.IPAddress != "127.0.0.1" && e.IPAddress != "" { // a session between two reads of the addresses has none
				w.t.Errorf("event %+v", e)
			}
		}
		if online == 0 || online != offline {
			w.t.Errorf("user %d: %d online and %d offline on MTProto", who.UserID, online, offline)
		}
	}
}

// Without telemt, Xray is served, Core is told what to install, and the inbound's link is not
// handed out. Once a telemt is installed, the inbound serves, and the revision runs as a whole.
func TestNoTelemt(t *testing.T) {
	t.Parallel()
	telemts(t, func(t *testing.T, binary string) {
		w := newWorld(t)
		later := filepath.Join(w.dir, "telemt")
		w.configure(fmt.Sprintf("[telemt]\nbinary = %q\n", later))
		w.protocol()
		mtproto, err := w.core.AddMTProto(w.ctx, "node")
		must(t, err)
		telegrams := w.centre()
		alice := w.subscriber("alice")
		must(t, w.agent.Start(w.ctx))
		target := w.target()
		client := w.linkClient(alice.Links[0])
		must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 1, 1) }))
		var shown struct{ Links, Without []string }
		must(t, Eventually(w.ctx, func() error {
			n, err := w.core.Node(w.ctx, "node")
			if err == nil && (n.Status != "degraded" || deref(n.LastErrorCode) != "telemt_missing") {
				err = fmt.Errorf("the node is %s, code %s, error %s", n.Status, deref(n.LastErrorCode), deref(n.LastError))
			}
			return err
		}))
		must(t, w.core.Do(w.ctx, &shown, "subscription", "show", fmt.Sprint(alice.ID)))
		if len(shown.Links) != 1 || len(shown.Without) != 1 || !strings.Contains(shown.Without[0], mtproto.Tag) {
			t.Errorf("links %q, without %q: want no link of %s", shown.Links, shown.Without, mtproto.Tag)
		}
		must(t, os.Symlink(binary, later))
		within, cancel := context.WithTimeout(w.ctx, time.Minute) // the first tries come after 15 and 30 s
		defer cancel()
		must(t, Within(within, time.Minute, func() error {
			n, err := w.core.Node(w.ctx, "node")
			if err == nil && (n.SyncStatus != "synced" || n.Status != "online") {
				err = fmt.Errorf("the node is %s, %s, error %s", n.Status, n.SyncStatus, deref(n.LastError))
			}
			return err
		}))
		must(t, Exchange(w.telegramClient(alice, mtproto), 17, 19))
		if telegrams.Traffic().Up == 0 {
			t.Error("nothing came through to the centre")
		}
	})
}
