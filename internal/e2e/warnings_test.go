package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"nodeagent/coreclient/wire"
)

// A refusal tells Core the place, and the warnings about the configuration that goes on.
func TestCoreIsToldWarnings(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	inbound := func(tag string, port int) map[string]any {
		return map[string]any{
			"tag": tag, "listen": "127.0.0.1", "port": port, "protocol": "shadowsocks",
			"settings": map[string]any{"network": "tcp", "clients": []any{map[string]any{"email": soleClient, "method": "aes-256-gcm", "password": soleClient}}},
		}
	}
	open, err := FreePort()
	must(t, err)
	unwise := map[string]any{
		"tag": "in-1", "listen": "127.0.0.1", "port": open, "protocol": "vless",
		"settings": map[string]any{"decryption": "none"}, "allocate": map[string]any{"strategy": "always"},
	}
	clients := map[string]wire.ClientRef{soleClient: {UserID: 1}}
	w.serve(clients, map[string]any{"inbounds": []any{unwise}})
	taken := busy.Addr().(*net.TCPAddr).Port
	must(t, w.scripted.publish(clients, map[string]any{"inbounds": []any{unwise, inbound("in-2", taken)}}))
	if err := w.scripted.applied(t.Context()); err == nil {
		t.Fatal("a port that is held was taken")
	}
	w.scripted.mu.Lock()
	defer w.scripted.mu.Unlock()
	details := w.scripted.details
	if details["tag"] != "in-2" || details["port"] != float64(taken) || !strings.Contains(fmt.Sprint(details["warnings"]), "allocate is not used") {
		t.Errorf("details %v", details)
	}
}
