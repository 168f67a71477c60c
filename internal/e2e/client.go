package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"

	"golang.org/x/net/proxy"
)

// Client is a stock Xray with a SOCKS inbound on loopback.
type Client struct {
	*process
	socks string
}

// NewClient starts a stock Xray client with the outbound, and with the inbounds more beside
// its SOCKS inbound. The names of its files begin with prefix.
func NewClient(ctx context.Context, p Programs, prefix string, outbound map[string]any, more ...any) (*Client, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"log":       map[string]any{"loglevel": "warning"},
		"inbounds":  append([]any{map[string]any{"listen": "127.0.0.1", "port": port, "protocol": "socks", "settings": map[string]any{"udp": true, "ip": "127.0.0.1"}}}, more...),
		"outbounds": []any{outbound},
	})
	if err != nil {
		return nil, fmt.Errorf("encode client: %w", err)
	}
	file := prefix + ".json"
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, fmt.Errorf("write client: %w", err)
	}
	c := &Client{socks: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if c.process, err = start(prefix+".log", p.Xray, "run", "-c", file); err != nil {
		return nil, err
	}
	return c, Eventually(ctx, func() error {
		if c.ended() {
			return fmt.Errorf("the client ended: %s", c.Log())
		}
		conn, err := net.Dial("tcp", c.socks)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Dial connects to a target through the tunnel. Success does not mean that the target was
// reached: the SOCKS inbound answers before the tunnel is open.
func (c *Client) Dial(target string) (net.Conn, error) {
	dialer, err := proxy.SOCKS5("tcp", c.socks, nil, proxy.Direct)
	if err != nil {
		return nil, fmt.Errorf("make SOCKS dialer: %w", err)
	}
	return dialer.Dial("tcp", target)
}

// Exchange moves bytes over a new connection.
func (c *Client) Exchange(target string, up, down int64) error {
	conn, err := c.Dial(target)
	if err != nil {
		return err
	}
	defer conn.Close()
	return Exchange(conn, up, down)
}

// VLESS returns the outbound that a vless:// link describes, as a stock client reads the link.
func VLESS(link string) (map[string]any, error) {
	u, err := url.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("read link: %w", err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil || u.Scheme != "vless" {
		return nil, fmt.Errorf("read link %q: want vless://UUID@HOST:PORT", link)
	}
	q := u.Query()
	stream := map[string]any{"network": q.Get("type"), "security": q.Get("security")}
	switch q.Get("security") {
	case "reality":
		stream["realitySettings"] = map[string]any{
			"serverName": q.Get("sni"), "publicKey": q.Get("pbk"), "shortId": q.Get("sid"), "fingerprint": q.Get("fp"),
		}
	case "tls":
		stream["tlsSettings"] = map[string]any{"serverName": q.Get("sni")}
	}
	return map[string]any{
		"protocol": "vless",
		"settings": map[string]any{"vnext": []any{map[string]any{
			"address": u.Hostname(), "port": port,
			"users": []any{map[string]any{"id": u.User.Username(), "encryption": q.Get("encryption"), "flow": q.Get("flow")}},
		}}},
		"streamSettings": stream,
	}, nil
}
