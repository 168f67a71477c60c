package e2e

import (
	"os"
	"testing"
	"time"
)

// The default routing keeps clients from private destinations on every way in, also SOCKS, from
// which Xray itself does not keep them (proxy/freedom/freedom.go:154). Another word of an
// operator's lets them through.
func TestDefaultRoutingBlocksPrivateDestinations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	port, err := FreePort()
	must(t, err)
	in, err := w.core.AddInbound(w.ctx, "node", map[string]any{"protocol": "socks", "listen": "127.0.0.1", "port": port, "settings": map[string]any{}})
	must(t, err)
	alice := w.subscriber("alice")
	w.start()
	target := w.target()
	client := w.client(map[string]any{"protocol": "socks", "settings": map[string]any{"servers": []any{
		map[string]any{"address": "127.0.0.1", "port": in.Port, "users": []any{map[string]any{"user": alice.UUID, "pass": alice.UUID}}},
	}}})
	reaches := func(when string, want bool) {
		t.Helper()
		before := target.Traffic()
		conn := w.dial(client, target)
		patience := time.Minute
		if !want { // freedom holds what it blocks for half a minute and more
			patience = time.Second
		}
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		if err := Exchange(conn, 10, 10); (err == nil) != want {
			t.Errorf("%s: an exchange with loopback: %v", when, err)
		}
		if after := target.Traffic(); (after != before) != want {
			t.Errorf("%s: the target had %+v before and has %+v", when, before, after)
		}
	}
	reaches("finalRules that allow it", true)
	plain := w.dir + "/plain.json"
	must(t, os.WriteFile(plain, []byte(`{"protocol":"freedom"}`), 0o600))
	w.wantExit(0, "outbound", "edit", "direct", "--node", "node", "--outbound", plain, "--wait=2m")
	reaches("the default profile", false)
	w.wantExit(0, "routing", "edit", "default", "--block-private=false", "--wait=2m")
	reaches("a profile that allows it", true)
	w.wantExit(0, "routing", "edit", "default", "--block-ip", "127.0.0.0/8", "--wait=2m")
	reaches("a profile that blocks the address", false)
	w.wantExit(0, "node", "edit", "node", "--routing", "", "--wait=2m")
	reaches("no profile", true)
}
