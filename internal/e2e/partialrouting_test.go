package e2e

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A geo file that is missing for one rule refuses the routing, which the host can mend, and
// nothing else: the removed client is cut, the new client of the inbound that runs is served.
// A new inbound waits, because without its rules it would be too open.
func TestAMissingGeoFileRefusesTheRoutingAlone(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	target := w.target()
	port, err := FreePort()
	must(t, err)
	otherPort, err := FreePort()
	must(t, err)
	inbound := func(tag string, port int, ids ...string) any {
		var clients []any
		for _, id := range ids {
			clients = append(clients, map[string]any{"id": id})
		}
		return with(withClients(vlessInbound(port, nil), clients), "tag", tag)
	}
	config := func(rule map[string]any, inbounds ...any) map[string]any {
		return map[string]any{
			"inbounds":  inbounds,
			"outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom"}, map[string]any{"tag": "block", "protocol": "blackhole"}},
			"routing":   map[string]any{"rules": []any{rule}},
		}
	}
	tunnel := func(id string) *Client {
		return w.client(map[string]any{"protocol": "vless", "settings": vnext(port, map[string]any{"id": id, "encryption": "none"})})
	}
	w.serve(map[string]wire.ClientRef{aliceID: {UserID: 1}, bobID: {UserID: 2}},
		config(map[string]any{"port": "1", "outboundTag": "block"}, inbound("in-1", port, aliceID, bobID)))
	ofAlice, ofBob := w.dial(tunnel(aliceID), target), w.dial(tunnel(bobID), target)
	must(t, Exchange(ofAlice, 10, 10))
	must(t, Exchange(ofBob, 10, 10))
	must(t, w.scripted.publish(map[string]wire.ClientRef{bobID: {UserID: 2}, carolID: {UserID: 3}},
		config(map[string]any{"domain": []string{"ext:missing.dat:ads"}, "outboundTag": "block"}, inbound("in-1", port, bobID, carolID), inbound("in-2", otherPort, bobID))))
	parts, err := w.scripted.refusedParts(w.ctx)
	must(t, err)
	if len(parts) != 1 || parts[0].Kind != "routing" || !parts[0].Retry {
		t.Errorf("refused are %+v, want the routing, which is tried again", parts)
	}
	select {
	case err := <-awaitEnd(ofAlice):
		t.Logf("the connection of the removed client has ended: %v", err)
	case <-time.After(3 * time.Second):
		t.Error("the connection of the removed client goes on")
	}
	carol := tunnel(carolID)
	must(t, Eventually(w.ctx, func() error {
		if err := carol.Exchange(target.Addr(), 10, 10); err != nil {
			return fmt.Errorf("the new client is not served: %w", err)
		}
		return nil
	}))
	must(t, Exchange(ofBob, 10, 10))
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(otherPort))); err == nil {
		_ = conn.Close()
		t.Error("the new inbound listens without its rules")
	}
}
