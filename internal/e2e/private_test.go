package e2e

import (
	"testing"
	"time"
)

// A node's clients do not reach private addresses, which are its own network's, unless its
// way out allows it.
func TestPrivateAddressesAreBlocked(t *testing.T) {
	t.Parallel()
	w := newScriptedWorld(t, quickConfig)
	port, err := FreePort()
	must(t, err)
	target := w.target()
	client := w.client(map[string]any{"protocol": "vless", "settings": soleSettings(port)})
	for _, c := range []struct {
		name    string
		rules   []any
		reaches bool
	}{
		{"without rules", []any{}, false},
		{"with a rule for another port", []any{map[string]any{"action": "allow", "port": "1"}}, false},
		{"allowed", []any{map[string]any{"action": "allow", "ip": []any{"127.0.0.0/8"}}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.serveSole(port, map[string]any{"outbounds": []any{map[string]any{
				"tag": "direct", "protocol": "freedom", "settings": map[string]any{"finalRules": c.rules},
			}}})
			before := target.Traffic()
			conn := w.dial(client, target)
			must(t, conn.SetDeadline(time.Now().Add(2*time.Second)))
			if err := Exchange(conn, 10, 10); (err == nil) != c.reaches {
				t.Errorf("an exchange with loopback: %v", err)
			}
			if after := target.Traffic(); (after != before) != c.reaches {
				t.Errorf("the target had %+v before and has %+v", before, after)
			}
		})
	}
}
