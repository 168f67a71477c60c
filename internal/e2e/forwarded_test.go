package e2e

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"

	"nodeagent/coreclient/wire"
)

// forwardedRow is a way in which a proxy tells the node a client's address.
type forwardedRow struct {
	name   string
	server map[string]any // stream settings
	client func(claimed string) map[string]any
	header bool // the relay writes the header of the PROXY protocol
}

func forwardedRows() []forwardedRow {
	plain := func(string) map[string]any { return nil }
	rows := []forwardedRow{
		{"PROXY of sockopt", map[string]any{"sockopt": map[string]any{"acceptProxyProtocol": true}}, plain, true},
		{"PROXY of raw", map[string]any{"rawSettings": map[string]any{"acceptProxyProtocol": true}}, plain, true},
		{"PROXY of ws", transport("ws", map[string]any{"path": "/p", "acceptProxyProtocol": true}), func(string) map[string]any {
			return transport("ws", map[string]any{"path": "/p"})
		}, true},
		// A header that the client writes does not count beside the one that its proxy writes.
		{"PROXY and headers of ws", with(transport("ws", map[string]any{"path": "/p"}), "sockopt", map[string]any{"acceptProxyProtocol": true, "trustedXForwardedFor": []any{"X-Forwarded-For"}}), func(string) map[string]any {
			return transport("ws", map[string]any{"path": "/p", "headers": map[string]any{"X-Forwarded-For": "203.0.113.1"}})
		}, true},
		// The header comes before what a mask makes of the connection.
		{"PROXY under a mask", minecraft(map[string]any{"network": "raw", "sockopt": map[string]any{"acceptProxyProtocol": true}}), func(string) map[string]any {
			return minecraft(map[string]any{"network": "raw"})
		}, true},
	}
	for _, network := range []string{"ws", "httpupgrade", "xhttp"} {
		rows = append(rows, forwardedRow{
			"headers of " + network,
			with(transport(network, map[string]any{"path": "/p"}), "sockopt", map[string]any{"trustedXForwardedFor": []any{"X-Proxy"}}),
			func(claimed string) map[string]any {
				return transport(network, map[string]any{"path": "/p", "headers": map[string]any{"X-Proxy": "1", "X-Forwarded-For": claimed}})
			},
			false,
		})
	}
	return rows
}

// forwardedWorld is a node with an inbound and a client for each row. Each client may come from
// one address at a time.
type forwardedWorld struct {
	*scriptedWorld
	rows   []forwardedRow
	ports  []int
	target *Target
}

func forwardedID(row int) string { return fmt.Sprintf("11111111-1111-4111-8111-%012d", row+1) }

func newForwardedWorld(t *testing.T, listen string, trusted []any) *forwardedWorld {
	t.Helper()
	w := &forwardedWorld{scriptedWorld: newScriptedWorld(t, quickConfig), rows: forwardedRows()}
	w.target = w.scriptedWorld.target()
	var inbounds []any
	clients := map[string]wire.ClientRef{}
	for i, r := range w.rows {
		port, err := FreePort()
		must(t, err)
		w.ports = append(w.ports, port)
		clients[forwardedID(i)] = wire.ClientRef{UserID: int64(i + 1)}
		inbound := map[string]any{
			"tag": fmt.Sprintf("in-%d", i+1), "listen": listen, "port": port, "protocol": "vless", "streamSettings": r.server,
			"settings": map[string]any{"decryption": "none", "clients": []any{map[string]any{"id": forwardedID(i), "limitIps": 1}}},
		}
		if trusted != nil {
			inbound["trustedProxies"] = trusted
		}
		inbounds = append(inbounds, inbound)
	}
	w.serve(clients, map[string]any{"inbounds": inbounds})
	return w
}

// from opens a connection that the proxy at an address forwards, with the claimed address.
func (w *forwardedWorld) from(row int, proxy, claimed string) (net.Conn, error) {
	w.t.Helper()
	r, port := w.rows[row], w.ports[row]
	if r.header {
		port = w.relay(proxy, port, fmt.Sprintf("PROXY TCP4 %s 192.0.2.9 1111 2222\r\n", claimed))
	}
	outbound := map[string]any{"protocol": "vless", "sendThrough": proxy, "settings": vnext(port, map[string]any{"id": forwardedID(row), "encryption": "none"})}
	if stream := r.client(claimed); stream != nil {
		outbound["streamSettings"] = stream
	}
	conn, err := w.client(outbound).Dial(w.target.Addr())
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn, bounded(conn, 10, 10)
}

// relay forwards connections from an address to a port of loopback, and writes the header
// first. It returns the port that it listens on.
func (w *forwardedWorld) relay(from string, port int, header string) int {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	w.t.Cleanup(func() { _ = l.Close() })
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := dialer.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			if err != nil {
				_ = near.Close()
				continue
			}
			pass := func(to io.WriteCloser, from io.Reader) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			go func() {
				_, _ = io.WriteString(far, header)
				pass(far, near)
			}()
			go pass(near, far)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// The node takes a client's address from the proxies of trustedProxies, and then lets only
// these proxies in; from no proxy where every host can connect; and from every connection on
// an inbound that listens on loopback.
func TestAddressesComeFromTrustedProxies(t *testing.T) {
	t.Parallel()
	const proxy, unlisted, one, another = "127.0.0.2", "127.0.0.3", "203.0.113.1", "203.0.113.2"
	for _, row := range []struct {
		name, listen string
		trusted      []any
		believed     bool // the client's address is the one that the proxy claims
		letIn        bool // a host that is no trusted proxy may connect
	}{
		{"named", "0.0.0.0", []any{"2001:db8::/32", "127.0.0.2/32"}, true, false},
		{"no proxy is trusted", "0.0.0.0", nil, false, false},
		{"local", "127.0.0.1", nil, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newForwardedWorld(t, row.listen, row.trusted)
			for i, r := range w.rows {
				if _, err := w.from(i, proxy, one); err != nil {
					t.Errorf("%s: the first: %v", r.name, err)
					continue
				}
				if _, err := w.from(i, proxy, one); err != nil {
					t.Errorf("%s: the first, again: %v", r.name, err)
				}
				if _, err := w.from(i, proxy, another); (err != nil) != row.believed {
					t.Errorf("%s: from the proxy, said to be another: %v", r.name, err)
				}
				if _, err := w.from(i, unlisted, one); (err == nil) != row.letIn {
					t.Errorf("%s: an unlisted proxy that claims the first address: %v", r.name, err)
				}
			}
		})
	}
}
