package e2e

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Datagrams through each protocol but mKCP, whose clients notice nothing, pass again after another worker
// has taken over, and after the worker was killed while the one before still drained. The test logs for how
// long none came back.
func TestDatagramsAfterATakeover(t *testing.T) {
	rows := []protocolRow{shadowsocksRow, ss2022Row, hysteriaRow, socksRow}
	for _, r := range protocolRows() {
		if r.name == "vless over XHTTP on HTTP/3" {
			rows = append(rows, r)
		}
	}
	w := newProtocolWorld(t, rows)
	alice := w.subscriber("alice")
	w.start()
	first, second := w.agent.path, anotherBuild(t)
	type flow struct {
		row  rowInbound
		conn *net.UDPConn
		last time.Time
	}
	var flows []*flow
	for _, r := range w.rows {
		f := &flow{row: r, conn: w.udpThrough(r, alice, w.udpEcho())}
		must(t, Eventually(w.ctx, func() error { return bounce(f.conn, 500) }))
		flows = append(flows, f)
	}
	for _, end := range []struct {
		name string
		do   func(pid int)
	}{
		{"a takeover", func(int) {
			must(t, w.agent.Leave())
			w.agent.path = map[bool]string{true: second, false: first}[w.agent.path == first]
			must(t, w.agent.Start(w.ctx))
		}},
		{"a crash", func(pid int) { must(t, syscall.Kill(pid, syscall.SIGKILL)) }},
	} {
		status, err := w.agent.Status(w.ctx)
		must(t, err)
		end.do(status.Engines.Xray.PID)
		must(t, Eventually(w.ctx, func() error {
			for _, f := range flows { // a client that sends, as most do
				_ = bounceWithin(f.conn, 100, time.Millisecond)
				if f.row.protocol == "socks" && end.name == "a crash" { // Xray's client does not watch the connection of its association
					must(t, f.conn.Close())
					f.conn, err = net.DialUDP("udp", nil, f.conn.RemoteAddr().(*net.UDPAddr))
					must(t, err)
				}
				f.last = time.Now()
			}
			now, err := w.agent.Status(w.ctx)
			if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.PID == status.Engines.Xray.PID) {
				err = errors.New("the worker before serves")
			}
			return err
		}))
		var waiting sync.WaitGroup
		for _, f := range flows {
			waiting.Go(func() {
				err := Within(w.ctx, 2*Patience, func() error { return bounceWithin(f.conn, 500, 20*time.Millisecond) })
				if err != nil {
					t.Errorf("over %s, %s: %v", end.name, f.row.name, err)
					return
				}
				t.Logf("over %s, %s: nothing came back for %d ms", end.name, f.row.name, time.Since(f.last).Milliseconds())
			})
		}
		waiting.Wait()
	}
}

// A stream over mKCP goes on over a takeover. It ends with its worker in a crash, and Xray's client does not
// notice. Each stream has a connection of its own: one that begins after a crash passes at once. With
// MKCP_SECONDS the test waits so long for the stream that was open, and logs what its application sees.
func TestMKCPAfterATakeover(t *testing.T) {
	rows := slices.DeleteFunc(protocolRows(), func(r protocolRow) bool { return r.name != "vless over mKCP" })
	w := newProtocolWorld(t, rows)
	alice := w.subscriber("alice")
	w.start()
	target, client := w.target(), w.clientOf(w.rows[0], alice)
	second := anotherBuild(t)
	for _, end := range []struct {
		name  string
		lasts bool // the stream that was open
		do    func(pid int)
	}{
		{"a takeover", true, func(int) {
			must(t, w.agent.Leave())
			w.agent.path = second
			must(t, w.agent.Start(w.ctx))
		}},
		{"a crash", false, func(pid int) { must(t, syscall.Kill(pid, syscall.SIGKILL)) }},
	} {
		open := w.dial(client, target)
		must(t, bounded(open, 1000, 1000))
		before, err := w.agent.Status(w.ctx)
		must(t, err)
		end.do(before.Engines.Xray.PID)
		must(t, Eventually(w.ctx, func() error {
			now, err := w.agent.Status(w.ctx)
			if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.PID == before.Engines.Xray.PID) {
				err = errors.New("the worker before serves")
			}
			return err
		}))
		began := time.Now()
		must(t, Eventually(w.ctx, func() error {
			conn, err := client.Dial(target.Addr())
			if err == nil {
				err = errors.Join(exchangeWithin(conn, 5*time.Second, 1000, 1000), conn.Close())
			}
			return err
		}))
		t.Logf("after %s, a stream that began then passed in %d ms", end.name, time.Since(began).Milliseconds())
		if end.lasts {
			must(t, bounded(open, 100_000, 100_000))
		} else if wait := environment(t, "MKCP_SECONDS", 0); wait > 0 {
			began, err := time.Now(), exchangeWithin(open, time.Duration(wait)*time.Second, 10, 10)
			t.Logf("after %s, the stream that was open saw, in %d s: %v", end.name, int(time.Since(began).Seconds()), err)
		}
		_ = open.Close()
	}
}
