package e2e

import (
	"testing"

	"nodeagent/coreclient/wire"
)

// A mux carrier of a removed inbound that has no stream at the moment carries no later stream.
func TestCarrierOfARemovedInbound(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	const uuid = "11111111-1111-4111-8111-111111111111"
	inbounds := map[string]any{}
	for _, tag := range []string{"goes-1", "stays-2"} {
		port, err := FreePort()
		must(t, err)
		inbounds[tag] = map[string]any{"tag": tag, "listen": "127.0.0.1", "port": port, "protocol": "vless", "settings": map[string]any{
			"decryption": "none", "clients": []any{map[string]any{"id": uuid}},
		}}
	}
	serve := func(tags ...string) {
		t.Helper()
		var all []any
		for _, tag := range tags {
			all = append(all, inbounds[tag])
		}
		w.serve(map[string]wire.ClientRef{uuid: {UserID: 1}}, map[string]any{"inbounds": all})
	}
	serve("goes-1", "stays-2")
	target := w.target()
	client := w.client(map[string]any{
		"protocol": "vless", "mux": mux["mux"],
		"settings": vnext(inbounds["goes-1"].(map[string]any)["port"].(int), map[string]any{"id": uuid, "encryption": "none"}),
	})
	must(t, client.Exchange(target.Addr(), 100, 100))
	serve("stays-2")
	if err := client.Exchange(target.Addr(), 1, 1); err == nil {
		t.Error("a stream came through a removed inbound")
	}
	status, err := w.agent.Status(t.Context())
	must(t, err)
	if status.Engines.Xray.Restarts != 0 {
		t.Error("the worker was replaced")
	}
}
