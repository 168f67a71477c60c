package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nodeagent/internal/namespace"
)

// A WireGuard outbound over an interface of the kernel works in the unit with the drop-in that
// docs/operating.md has for it, and leads a client through its tunnel.
func TestDebianKernelWireGuard(t *testing.T) {
	namespace.Parallel(t)
	needDebian(t)
	packages := release(t, "1.0.0")
	if !inside(t, "true", releasesEnv+"="+filepath.Dir(packages)) { // there is no network to fetch tools from
		return
	}
	t.Setenv("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network") // as on a host: the network is the test's own
	w := &debianWorld{machine: newMachine(t, "--capability=CAP_NET_ADMIN"), t: t}
	w.copyIn(packages, "/dist/1.0.0")
	w.installCore()
	w.installAgent()

	target, err := NewTarget()
	must(t, err)
	t.Cleanup(func() { _ = target.Close() })
	server, own := newWireGuardKey(t), newWireGuardKey(t)
	port, err := FreePort()
	must(t, err)
	// The other end of the tunnel.
	far, err := NewClient(t.Context(), programs(t), filepath.Join(t.TempDir(), "far"),
		map[string]any{"protocol": "freedom", "settings": map[string]any{
			"redirect": target.Addr(), "finalRules": []any{map[string]any{"action": "allow", "ip": []string{"127.0.0.0/8"}}},
		}},
		map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "wireguard", "settings": map[string]any{
			"secretKey": wireGuardText(server.Bytes()),
			"peers":     []any{map[string]any{"publicKey": wireGuardText(own.PublicKey().Bytes()), "allowedIPs": []string{"10.9.0.2/32"}}},
		}})
	must(t, err)
	t.Cleanup(far.Kill)
	w.write("tunnel.json", map[string]any{"tag": "tunnel", "protocol": "wireguard", "settings": map[string]any{
		"secretKey": wireGuardText(own.Bytes()), "address": []string{"10.9.0.2/32"},
		"peers": []any{map[string]any{"endpoint": net.JoinHostPort("127.0.0.1", itoa(port)), "publicKey": wireGuardText(server.PublicKey().Bytes())}},
	}})
	w.write("rules.json", []any{map[string]any{"network": "tcp", "outboundTag": "tunnel"}})

	w.run("chmod 666 /dev/net/tun") // as udev does on a host (50-udev-default.rules)
	w.run("mkdir -p /etc/systemd/system/node-agent.service.d")
	must(t, os.WriteFile(filepath.Join(w.root, "etc/systemd/system/node-agent.service.d/wireguard.conf"), []byte(documentedDropIn(t, "WireGuard outbounds over kernel interfaces")), 0o644))
	w.run("systemctl daemon-reload; systemctl restart node-agent")
	w.run("node-core outbound add --node fra1 --outbound /tunnel.json --wait=60s")
	w.run("node-core routing edit default --rules /rules.json --wait=60s")
	if _, err := net.InterfaceByName("wg0"); err != nil {
		t.Fatalf("the outbound has no interface of the kernel: %v\n%s", err, w.run("node-agent status; journalctl --no-pager -n 60 -o cat -u node-agent"))
	}
	outbound, err := VLESS(w.subscription.Links[0])
	must(t, err)
	w.client, err = NewClient(t.Context(), programs(t), filepath.Join(t.TempDir(), "client"), outbound)
	must(t, err)
	t.Cleanup(w.client.Kill)
	conn, err := w.client.Dial(somewhere)
	must(t, err)
	defer conn.Close()
	if err := bounded(conn, 100_000, 200_000); err != nil {
		t.Fatalf("through the tunnel: %v\n%s", err, w.run("node-agent status; journalctl --no-pager -n 60 -o cat -u node-agent"))
	}
}

// write writes a file with JSON into the root folder of the machine.
func (w *debianWorld) write(name string, value any) {
	w.t.Helper()
	text, err := json.Marshal(value)
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(w.root, name), text, 0o644))
}

// documentedDropIn returns the first drop-in of docs/operating.md after a text.
func documentedDropIn(t *testing.T, after string) string {
	t.Helper()
	root, err := moduleRoot(t.Context())
	must(t, err)
	document, err := os.ReadFile(filepath.Join(root, "docs", "operating.md"))
	must(t, err)
	_, rest, found := strings.Cut(string(document), after)
	block := regexp.MustCompile(`(?m)^    \[Service\]\n(    .*\n)+`).FindString(rest)
	if !found || block == "" {
		t.Fatalf("docs/operating.md has no drop-in after %q", after)
	}
	return fmt.Sprintln(strings.ReplaceAll(strings.TrimPrefix(block, "    "), "\n    ", "\n"))
}
