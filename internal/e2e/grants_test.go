package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/telegram"
)

// beyondGrant is how many bytes more than were granted may pass Xray: one read.
const beyondGrant = 1 << 20

func grantOf(id string, bytes int64) map[string]any {
	return map[string]any{"id": id, "bytes": bytes, "expiresAt": time.Now().Add(time.Hour)}
}

// moved returns the sum of what Core was told of user 1, both directions.
func (c *scriptedCore) moved() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usage[1].Up + c.usage[1].Down
}

// told waits until Core was told of at least so many bytes of user 1 since before, and wants no more
// than those and most on top.
func (w *scriptedWorld) told(before, granted, most int64) {
	w.t.Helper()
	must(w.t, Eventually(w.ctx, func() error {
		if moved := w.scripted.moved() - before; moved < granted {
			return fmt.Errorf("Core was told of %d bytes, %d were granted", moved, granted)
		}
		return nil
	}))
	if moved := w.scripted.moved() - before; moved > granted+most {
		w.t.Errorf("%d bytes passed, %d were granted", moved, granted)
	}
}

func (w *scriptedWorld) endedByGrant(want int) {
	w.t.Helper()
	must(w.t, Eventually(w.ctx, func() error {
		status, err := w.agent.Status(w.ctx)
		if err == nil && status.EndedByGrant != want {
			err = fmt.Errorf("%d clients are ended by a grant, want %d", status.EndedByGrant, want)
		}
		return err
	}))
}

// A grant bounds a person over all inbounds together: streams that are spliced, in a mux carrier, over
// HTTP and over UDP end when it is used up, new ones are refused, and Core is told soon. Another
// grant lets the person in, and no change of a grant ends a connection.
func TestGrants(t *testing.T) {
	t.Parallel()
	const granted = 8 << 20
	_, reality := secureStreams(t)
	ws := transport("ws", map[string]any{"path": "/p"})
	w := newLimitedWorld(t, []limitRow{
		{name: "raw"},
		{name: "ws", server: ws, client: ws},
		{name: "mux", more: mux},
		{name: "vision", flow: "xtls-rprx-vision", server: reality.server, client: reality.client},
	})
	target, site := w.target(), newTLSTarget(t, newCert(t))
	clients := make([]*Client, len(w.rows))
	for i := range w.rows {
		clients[i] = w.clientFrom(i, "127.0.0.1")
	}
	connect := func(row int) (net.Conn, error) {
		if w.rows[row].name == "vision" {
			return site.dialTLS(clients[row])
		}
		return clients[row].Dial(target.Addr())
	}
	w.limit(map[string]any{"grant": grantOf("first", granted)})

	var streams sync.WaitGroup
	var received atomic.Int64
	for row := range w.rows {
		streams.Go(func() {
			conn, err := connect(row)
			if err != nil {
				return // the grant was used up before
			}
			defer conn.Close()
			if err := Exchange(countedConn{conn, &received}, 0, 1<<40); err == nil {
				t.Errorf("%s: the stream did not end", w.rows[row].name)
			}
		})
	}
	streams.Wait()
	w.told(0, granted, beyondGrant)
	if n := received.Load(); n > granted+beyondGrant {
		t.Errorf("the clients got %d bytes, %d were granted", n, granted)
	}
	w.endedByGrant(1)
	for row, r := range w.rows {
		if conn, err := connect(row); err == nil {
			if err := Exchange(conn, 1, 1); err == nil {
				t.Errorf("%s: a stream was let in after the end of the grant", r.name)
			}
			_ = conn.Close()
		}
	}

	w.limit(map[string]any{"grant": grantOf("second", 1<<30)})
	w.endedByGrant(0)
	open := make([]net.Conn, len(w.rows))
	for row := range w.rows {
		must(t, Eventually(w.ctx, func() (err error) {
			if open[row], err = connect(row); err == nil {
				err = Exchange(open[row], 1000, 1<<20)
			}
			return err
		}))
		defer open[row].Close()
	}
	for _, bounds := range []map[string]any{
		{"grant": grantOf("second", 2<<30)}, {"grant": grantOf("third", 1<<30)}, {}, {"grant": grantOf("third", 1<<31)},
	} {
		w.limit(bounds)
		for row, conn := range open {
			if err := Exchange(conn, 1000, 1<<20); err != nil {
				t.Errorf("%s: the connection ended when the grant became %v: %v", w.rows[row].name, bounds["grant"], err)
			}
		}
	}
	w.limit(map[string]any{"grant": map[string]any{"id": "fourth", "bytes": 1 << 30, "expiresAt": time.Now()}})
	for row, conn := range open {
		if err := Exchange(conn, 0, 1<<40); err == nil {
			t.Errorf("%s: the connection did not end though the grant has expired", w.rows[row].name)
		}
	}
}

// The bytes that were moved under a grant are remembered whichever process is killed, and whichever
// grants Core names meanwhile. MTProto counts for the same grant, and is ended by it.
func TestGrantsOutliveProcesses(t *testing.T) {
	t.Parallel()
	telemts(t, func(t *testing.T, binary string) {
		const granted = 8 << 20
		w := newScriptedWorld(t, quickConfig+fmt.Sprintf("[telemt]\nbinary = %q\n", binary))
		target := w.target()
		centre, err := telegram.NewCentre(target.Serve)
		must(t, err)
		t.Cleanup(func() { must(t, centre.Close()) })
		centres := map[string]any{}
		for _, number := range []string{"1", "2", "3", "4", "5", "203"} {
			centres[number] = []string{centre.Addr()}
		}
		port, err := FreePort()
		must(t, err)
		mtprotoPort, err := FreePort()
		must(t, err)
		secret, rawSecret := mtprotoSecret(1)
		serve := func(grant any) {
			client := map[string]any{"id": soleClient}
			mtproto := map[string]any{"id": soleClient, "secret": secret}
			if grant != nil {
				client["grant"], mtproto["grant"] = grant, grant
			}
			in := with(withClients(vlessInbound(port, nil), []any{client}), "tag", "in-1")
			must(t, w.scripted.publishBoth(map[string]wire.ClientRef{soleClient: {UserID: 1}}, map[string]any{"inbounds": []any{in}}, map[string]any{
				"inbounds":  []any{map[string]any{"nodeProtocolId": 2, "tag": "mtproto-2", "listen": "127.0.0.1", "port": mtprotoPort, "modes": map[string]any{"secure": true}, "clients": []any{mtproto}}},
				"upstreams": []any{map[string]any{"type": "direct", "bindAddresses": []string{"127.0.0.1"}}},
				"advanced":  map[string]any{"dc_overrides": centres},
			}))
			must(t, w.scripted.applied(w.ctx))
		}
		client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port)})
		telegramClient := func() (net.Conn, error) {
			return telegram.Dial(net.JoinHostPort("127.0.0.1", fmt.Sprint(mtprotoPort)), rawSecret, 2)
		}
		exchange := func(down int64) {
			t.Helper()
			must(t, Eventually(w.ctx, func() error { return client.Exchange(target.Addr(), 0, down) }))
		}
		dialTelegram := func() net.Conn {
			t.Helper()
			var chat net.Conn
			must(t, Eventually(w.ctx, func() (err error) {
				if chat, err = telegramClient(); err == nil {
					err = Exchange(chat, 1, 1)
				}
				return err
			}))
			t.Cleanup(func() { _ = chat.Close() })
			return chat
		}
		first := grantOf("first", granted)
		serve(first)
		exchange(1 << 20)
		must(t, Exchange(dialTelegram(), 1<<20, 1))
		w.read(Traffic{1<<20 + 33, 2}) // a daemon that is killed loses what it has not read
		w.agent.Crash()
		exchange(1 << 20) // the worker serves on
		must(t, w.agent.Start(w.ctx))
		exchange(1 << 20)
		status, err := w.agent.Status(w.ctx)
		must(t, err)
		must(t, syscall.Kill(status.Engines.Xray.PID, syscall.SIGKILL))
		exchange(1 << 20)
		must(t, Eventually(w.ctx, func() error { // its report is not to be taken for one about the next revision
			w.scripted.mu.Lock()
			defer w.scripted.mu.Unlock()
			if len(w.scripted.failures) == 0 {
				return errors.New("Core is not told that the worker was killed")
			}
			return nil
		}))
		for _, other := range []any{grantOf("another", 1<<30), nil} { // what is moved under these does not count
			serve(other)
			exchange(8 << 20)
		}
		serve(first)
		chat := dialTelegram()
		served := int64(0)
		for client.Exchange(target.Addr(), 0, 1<<20) == nil {
			served++
		}
		if served > (granted-5<<20)>>20 {
			t.Errorf("%d MiB were served when the first grant was named again, less than 3 were left", served)
		}
		w.endedByGrant(1)
		wantEnd(t, "the MTProto session", chat)

		serve(grantOf("second", 4<<20))
		var conn net.Conn
		must(t, Eventually(w.ctx, func() (err error) {
			if conn, err = client.Dial(target.Addr()); err == nil {
				err = Exchange(conn, 1, 1)
			}
			return err
		}))
		defer conn.Close()
		_ = Exchange(dialTelegram(), 4<<20, 1) // it may be ended before its last byte
		wantEnd(t, "the connection through Xray", conn)
		w.endedByGrant(1)
	})
}

// wantEnd waits until a connection on which nothing moves is ended from the other side.
func wantEnd(t *testing.T, what string, conn net.Conn) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(Patience)))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s did not end: %v", what, err)
	}
}
