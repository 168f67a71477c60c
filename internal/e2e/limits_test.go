package e2e

import (
	"fmt"
	"maps"
	"net"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

const limitedUUID = "11111111-1111-4111-8111-111111111111"

// limitRow is a protocol and transport over which limits have to hold.
type limitRow struct {
	name, flow     string
	server, client map[string]any // stream settings
	more           map[string]any
	forged         bool // the client sends a header with another address
}

// limitedWorld is a node on which one client with limits has an account on every row's inbound.
type limitedWorld struct {
	*scriptedWorld
	rows  []limitRow
	ports []int
}

func newLimitedWorld(t *testing.T, rows []limitRow) *limitedWorld {
	t.Helper()
	w := &limitedWorld{newScriptedWorld(t, quickConfig), rows, make([]int, len(rows))}
	for i := range rows {
		var err error
		w.ports[i], err = FreePort()
		must(t, err)
	}
	return w
}

func (w *limitedWorld) limit(limits map[string]any) {
	w.t.Helper()
	var inbounds []any
	for i, r := range w.rows {
		account := map[string]any{"id": limitedUUID, "flow": r.flow}
		maps.Copy(account, limits)
		in := map[string]any{
			"tag": fmt.Sprintf("in-%d", i+1), "listen": "127.0.0.1", "port": w.ports[i], "protocol": "vless",
			"settings": map[string]any{"decryption": "none", "clients": []any{account}},
		}
		if r.server != nil {
			in["streamSettings"] = r.server
		}
		inbounds = append(inbounds, in)
	}
	w.serve(map[string]wire.ClientRef{limitedUUID: {UserID: 1}}, map[string]any{"inbounds": inbounds})
}

// clientFrom is a stock client of a row that connects from an address.
func (w *limitedWorld) clientFrom(row int, address string) *Client {
	w.t.Helper()
	r := w.rows[row]
	outbound := map[string]any{"protocol": "vless", "sendThrough": address, "settings": vnext(w.ports[row], map[string]any{"id": limitedUUID, "encryption": "none", "flow": r.flow})}
	if stream := maps.Clone(r.client); stream != nil {
		if r.forged {
			name := stream["network"].(string) + "Settings"
			stream[name] = with(stream[name].(map[string]any), "headers", map[string]any{"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "CF-Connecting-IP": "127.0.0.1"})
		}
		outbound["streamSettings"] = stream
	}
	maps.Copy(outbound, r.more)
	return w.client(outbound)
}

// Limits of addresses and connections hold for a client over all its inbounds together. A
// header of the client does not change the address that counts.
func TestLimitsHoldOverInbounds(t *testing.T) {
	t.Parallel()
	row := func(network string) limitRow {
		stream := transport(network, map[string]any{"path": "/p"})
		return limitRow{name: network, server: stream, client: stream, forged: true}
	}
	w := newLimitedWorld(t, []limitRow{{name: "raw"}, row("ws"), row("httpupgrade"), row("xhttp")})
	w.limit(map[string]any{"limitIps": 1})
	target := w.target()
	first := w.dial(w.clientFrom(0, "127.0.0.1"), target)
	must(t, bounded(first, 10, 10))
	for i, r := range w.rows {
		if err := w.clientFrom(i, "127.0.0.2").Exchange(target.Addr(), 1, 1); err == nil {
			t.Errorf("%s: a second address was let in", r.name)
		}
		if err := w.clientFrom(i, "127.0.0.1").Exchange(target.Addr(), 1, 1); err != nil {
			t.Errorf("%s: the first address, again: %v", r.name, err)
		}
	}
	must(t, first.Close())
	must(t, Eventually(t.Context(), func() error { return w.clientFrom(1, "127.0.0.3").Exchange(target.Addr(), 1, 1) }))

	w.limit(map[string]any{"limitConnections": 2})
	for row := range 2 {
		var conn net.Conn
		must(t, Eventually(t.Context(), func() error { // the node notices the end of earlier connections a little later
			conn = w.dial(w.clientFrom(row, "127.0.0.1"), target)
			return bounded(conn, 1, 1)
		}))
		defer conn.Close()
	}
	if err := w.clientFrom(3, "127.0.0.1").Exchange(target.Addr(), 1, 1); err == nil {
		t.Error("a third connection was let in")
	}
}

// Rates hold in both directions, also for a mux carrier with several streams and for a
// connection that the kernel splices.
func TestRatesHold(t *testing.T) {
	t.Parallel()
	const rate = 1 << 20 // bytes a second
	_, reality := secureStreams(t)
	xhttp := transport("xhttp", map[string]any{"path": "/x"})
	w := newLimitedWorld(t, []limitRow{
		{name: "raw"},
		{name: "mux", more: mux},
		{name: "vision", flow: "xtls-rprx-vision", server: reality.server, client: reality.client},
		{name: "xhttp", server: xhttp, client: xhttp},
	})
	w.limit(map[string]any{"rateUpBitsPerSecond": 8 * rate, "rateDownBitsPerSecond": 8 * rate})
	target := w.target()
	for i, r := range w.rows {
		client := w.clientFrom(i, "127.0.0.1")
		for direction, bytes := range map[string][2]int64{"up": {2 * rate, 1}, "down": {1, 2 * rate}} {
			t.Run(r.name+" "+direction, func(t *testing.T) {
				began := time.Now()
				must(t, client.Exchange(target.Addr(), bytes[0], bytes[1]))
				if took := time.Since(began); took < time.Second { // two seconds, less the burst and what is buffered
					t.Errorf("2 MiB took %s at 1 MiB a second", took)
				}
			})
		}
	}
}
