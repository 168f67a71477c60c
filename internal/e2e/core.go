package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Core is a node-core on loopback with its own database.
type Core struct {
	*process
	path   string
	dir    string
	listen string
	more   []string // flags of serve
}

// NewCore starts a Core whose data is in dir. more are flags of serve.
func NewCore(ctx context.Context, p Programs, dir string, more ...string) (*Core, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	c := &Core{path: p.Core, dir: dir, listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), more: more}
	return c, c.Start(ctx)
}

// Start starts a Core that was stopped again, on the same port and data.
func (c *Core) Start(ctx context.Context) (err error) {
	if c.process, err = start(c.dir+".log", c.path, append([]string{"serve", "--data-dir", c.dir, "--listen", c.listen}, c.more...)...); err != nil {
		return err
	}
	return c.answers(ctx)
}

// answers waits until Core answers commands.
func (c *Core) answers(ctx context.Context) error {
	return Eventually(ctx, func() error {
		if c.ended() {
			return fmt.Errorf("node-core ended: %s", c.Log())
		}
		var nodes []any
		return c.Do(ctx, &nodes, "node", "list")
	})
}

// Do runs a node-core command and decodes the JSON value that it prints into answer.
func (c *Core) Do(ctx context.Context, answer any, args ...string) error {
	return outputJSON(ctx, answer, c.path, append(args, "--data-dir", c.dir)...)
}

// Node is the output of `node show`.
type Node struct {
	ID              int64      `json:"id"`
	Status          string     `json:"status"`
	SyncStatus      string     `json:"syncStatus"`
	Revision        int64      `json:"revision"`
	AppliedRevision *int64     `json:"appliedRevision"`
	LastSeenAt      *time.Time `json:"lastSeenAt"`
	LastError       *string    `json:"lastError"`
	LastErrorCode   *string    `json:"lastErrorCode"`
	Outbounds       []struct {
		Tag              string `json:"tag"`
		TrafficBytesUp   int64  `json:"trafficBytesUp"`
		TrafficBytesDown int64  `json:"trafficBytesDown"`
	} `json:"outbounds"`
}

// AddNode adds a node whose clients may reach loopback, and returns its join token.
func (c *Core) AddNode(ctx context.Context, name string) (token string, err error) {
	var added struct{ JoinToken string }
	if err := c.Do(ctx, &added, "node", "add", name, "--region", "test"); err != nil {
		return "", err
	}
	return added.JoinToken, c.AddOutbound(ctx, name, json.RawMessage(freedomToLoopback))
}

// AddOutbound adds a native outbound to a node, or replaces the one of its tag.
func (c *Core) AddOutbound(ctx context.Context, node string, outbound json.RawMessage) error {
	file := filepath.Join(c.dir, "outbound.json")
	if err := os.WriteFile(file, outbound, 0o600); err != nil {
		return fmt.Errorf("write outbound: %w", err)
	}
	var added any
	return c.Do(ctx, &added, "outbound", "add", "--node", node, "--outbound", file)
}

// Node returns a node.
func (c *Core) Node(ctx context.Context, name string) (n Node, err error) {
	return n, errors.Join(err, c.Do(ctx, &n, "node", "show", name))
}

// Synced waits until the node runs the revision that Core wants.
func (c *Core) Synced(ctx context.Context, name string) error {
	return Eventually(ctx, func() error {
		n, err := c.Node(ctx, name)
		if err != nil {
			return err
		}
		if n.SyncStatus != "synced" {
			return fmt.Errorf("node %s is %s, sync %s, revision %d, last error %s", name, n.Status, n.SyncStatus, n.Revision, deref(n.LastError))
		}
		return nil
	})
}

func deref(s *string) string {
	if s == nil {
		return "none"
	}
	return *s
}

// Protocol is the output of `protocol add`.
type Protocol struct {
	ID   int64  `json:"id"`
	Tag  string `json:"tag"`
	Port int    `json:"port"`
}

// AddVLESS adds a VLESS inbound that flags describe.
func (c *Core) AddVLESS(ctx context.Context, node string, flags ...string) (p Protocol, err error) {
	port, err := FreePort()
	if err != nil {
		return p, err
	}
	args := append([]string{"protocol", "add", "--node", node, "--protocol", "vless", "--listen", "127.0.0.1", "--port", strconv.Itoa(port)}, flags...)
	return p, errors.Join(err, c.Do(ctx, &p, args...))
}

// AddInbound adds an inbound that is given as Xray's own object.
func (c *Core) AddInbound(ctx context.Context, node string, inbound map[string]any, flags ...string) (p Protocol, err error) {
	raw, err := json.Marshal(inbound)
	if err != nil {
		return p, fmt.Errorf("encode inbound: %w", err)
	}
	file := filepath.Join(c.dir, "inbound.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return p, fmt.Errorf("write inbound: %w", err)
	}
	args := append([]string{"protocol", "add", "--node", node, "--inbound", file}, flags...)
	return p, errors.Join(err, c.Do(ctx, &p, args...))
}

// Subscription is the output of `subscription add` and `subscription list`.
type Subscription struct {
	ID        int64    `json:"id"`
	UUID      string   `json:"uuid"`
	UserID    int64    `json:"userId"`
	BytesUp   int64    `json:"bytesUp"`
	BytesDown int64    `json:"bytesDown"`
	Links     []string `json:"links"`
}

// AddSubscriber adds a user with a subscription.
func (c *Core) AddSubscriber(ctx context.Context, name string) (s Subscription, err error) {
	var user struct{ ID int64 }
	if err := c.Do(ctx, &user, "user", "add", name); err != nil {
		return s, err
	}
	return s, errors.Join(err, c.Do(ctx, &s, "subscription", "add", "--user", name))
}

// UsageRow is a row of `usage`.
type UsageRow struct {
	UserID         int64     `json:"userId"`
	SubscriptionID *int64    `json:"subscriptionId"`
	NodeProtocolID int64     `json:"nodeProtocolId"`
	BytesUp        int64     `json:"bytesUp"`
	BytesDown      int64     `json:"bytesDown"`
	RecordedAt     time.Time `json:"recordedAt"`
}

// Event is a row of `events`.
type Event struct {
	UserID     int64     `json:"userId"`
	Protocol   string    `json:"protocol"`
	EventType  string    `json:"eventType"`
	OccurredAt time.Time `json:"occurredAt"`
	IPAddress  string    `json:"ipAddress"`
}

// Traffic is bytes in both directions; Up is from the client to the server.
type Traffic struct{ Up, Down int64 }

// Account identifies a user's traffic through one protocol.
type Account struct{ User, Protocol int64 }

// Usage returns the sums of Core's usage rows.
func (c *Core) Usage(ctx context.Context) (map[Account]Traffic, error) {
	var rows []UsageRow
	if err := c.Do(ctx, &rows, "usage", "--limit", "100000"); err != nil {
		return nil, err
	}
	sums := map[Account]Traffic{}
	for _, r := range rows {
		a := Account{r.UserID, r.NodeProtocolID}
		t := sums[a]
		sums[a] = Traffic{t.Up + r.BytesUp, t.Down + r.BytesDown}
	}
	return sums, nil
}

// Events returns Core's session events, the oldest first.
func (c *Core) Events(ctx context.Context) (events []Event, err error) {
	return events, errors.Join(err, c.Do(ctx, &events, "events"))
}
