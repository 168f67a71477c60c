package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// AddMTProto adds an MTProto inbound in secure mode to a node.
func (c *Core) AddMTProto(ctx context.Context, node string, flags ...string) (p Protocol, err error) {
	port, err := FreePort()
	if err != nil {
		return p, err
	}
	args := append([]string{"protocol", "add", "--node", node, "--protocol", "mtproto", "--listen", "127.0.0.1", "--port", strconv.Itoa(port), "--secure"}, flags...)
	return p, errors.Join(err, c.Do(ctx, &p, args...))
}

// SetCentre makes a node's MTProto inbounds connect to a data centre on loopback instead of
// Telegram's.
func (c *Core) SetCentre(ctx context.Context, node, address string) error {
	centres := map[string][]string{}
	for _, number := range []string{"1", "2", "3", "4", "5", "203"} {
		centres[number] = []string{address}
	}
	options, err := json.Marshal(map[string]any{
		"upstreams": []any{map[string]any{"type": "direct", "bindAddresses": []string{"127.0.0.1"}}},
		"advanced":  map[string]any{"dc_overrides": centres},
	})
	if err != nil {
		return fmt.Errorf("encode MTProto options: %w", err)
	}
	file := filepath.Join(c.dir, "mtproto.json")
	if err := os.WriteFile(file, options, 0o600); err != nil {
		return fmt.Errorf("write MTProto options: %w", err)
	}
	var set any
	return c.Do(ctx, &set, "node", "mtproto", node, file)
}

// SecureLink is the tg:// link of the secure (dd) form for a port.
func (s Subscription) SecureLink(port int) (string, error) {
	for _, link := range s.Links {
		if strings.HasPrefix(link, "tg://") && strings.Contains(link, "secret=dd") && strings.Contains(link, fmt.Sprintf("port=%d&", port)) {
			return link, nil
		}
	}
	return "", fmt.Errorf("no secure tg:// link for port %d among %q", port, s.Links)
}
