package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A client may bring an outbound (VLESS reverse) that rules name. The outbound comes back when
// the client connects again. When the client is removed the rules may stay, also over a
// restart.
func TestReverse(t *testing.T) {
	t.Parallel()
	const visitor, bridge = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	w := newScriptedWorld(t, quickConfig)
	port, err := FreePort()
	must(t, err)
	serve := func(network string, clients ...any) {
		w.serve(map[string]wire.ClientRef{visitor: {UserID: 1}, bridge: {UserID: 2}}, map[string]any{
			"inbounds": []any{map[string]any{
				"tag": "in-1", "listen": "127.0.0.1", "port": port, "protocol": "vless",
				"settings": map[string]any{"decryption": "none", "clients": append(clients, map[string]any{"id": visitor})},
			}},
			"outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom"}},
			"routing":   map[string]any{"rules": []any{map[string]any{"network": network, "outboundTag": "brought"}}},
		})
	}
	serve("tcp", map[string]any{"id": bridge, "reverse": map[string]any{"tag": "brought"}})
	config, err := json.Marshal(map[string]any{
		"outbounds": []any{map[string]any{"tag": "free", "protocol": "freedom"}, map[string]any{
			"tag": "up", "protocol": "vless",
			"settings": map[string]any{"address": "127.0.0.1", "port": port, "id": bridge, "encryption": "none", "reverse": map[string]any{"tag": "asked"}},
		}},
		"routing": map[string]any{"rules": []any{map[string]any{"inboundTag": []string{"asked"}, "outboundTag": "free"}}},
	})
	must(t, err)
	config, err = ReachLoopback(config)
	must(t, err)
	file := filepath.Join(w.dir, "bridge.json")
	must(t, os.WriteFile(file, config, 0o600))
	target := w.target()
	client := w.client(map[string]any{"protocol": "vless", "settings": vnext(port, map[string]any{"id": visitor, "encryption": "none"})})
	for range 2 {
		p, err := start(filepath.Join(w.dir, "bridge.log"), w.progs.Xray, "run", "-c", file)
		must(t, err)
		must(t, Eventually(t.Context(), func() error {
			conn, err := client.Dial(target.Addr())
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			return Exchange(conn, 1000, 1000)
		}))
		p.Kill()
	}
	serve("tcp")
	if err := client.Exchange(target.Addr(), 1, 1); err == nil {
		t.Error("traffic of a rule without an outbound got out")
	}
	w.agent.Kill()
	must(t, w.agent.Start(w.ctx))
	serve("udp") // the rule now names no client's outbound
	must(t, client.Exchange(target.Addr(), 1, 1))
}
