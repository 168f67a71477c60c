package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An upgrade from an older build, which UNNOTICED_OLDER names, one that is given up, and a downgrade to it.
// No connection over TCP ends; XHTTP takes part where the older build passes requests between workers. Connections over QUIC may begin anew where the older build
// passes no datagrams between workers: the test logs how many did, and for how long nothing passed. Every byte is
// counted once.
func TestUnnoticedOlderBuild(t *testing.T) {
	older := os.Getenv("UNNOTICED_OLDER")
	if older == "" {
		t.Skip("NOT RUN: it needs an older build of node-agent. Check out an older commit, build it with: go build ./cmd/node-agent, and name the program with UNNOTICED_OLDER")
	}
	if !migrating(t) {
		return
	}
	program, err := os.ReadFile(older)
	must(t, err)
	passes := bytes.Contains(program, []byte("Node-Agent-Kind")) // xray/worker/transport/xhttp/passing.go
	t.Logf("the older build passes requests of XHTTP between workers: %t", passes)
	var quic, others []protocolRow
	for _, r := range unnoticedRows() {
		switch {
		case r.stream["network"] == "kcp": // begins anew
		case r.protocol == "hysteria" || r.name == "vless over XHTTP on HTTP/3":
			quic = append(quic, r)
		case r.stream["network"] == "xhttp" && !passes:
		default:
			others = append(others, r)
		}
	}
	var newer string
	u := newUnnoticed(t, others, func(u *unnoticed) {
		u.drainLong()
		newer = anotherBuild(t)
		u.agent.path = older
		u.install()
	})
	over := u.overQUIC(quic)
	for _, step := range []struct {
		name, build, fault string
	}{
		{"an upgrade that is given up", newer, "xray-worker panics"}, {"an upgrade", newer, ""}, {"a downgrade", older, ""}, {"another upgrade", newer, ""},
	} {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(u.agent.path), "fault"), []byte(step.fault), 0o600))
		for _, c := range over {
			must(t, bounded(c.conn, 100, 100))
			c.last = time.Now()
		}
		u.put(step.build)
		before, err := u.agent.Status(u.ctx)
		must(t, err)
		u.reload()
		must(t, Within(u.ctx, unnoticedLimit, func() error {
			now, err := u.agent.Status(u.ctx)
			if err == nil && (now.Engines.Xray.State != "running" || now.Engines.Xray.PID == before.Engines.Xray.PID) && step.fault == "" {
				err = errors.New("no worker of the other build has taken over")
			}
			if text, asked := u.agent.StatusText(u.ctx); step.fault != "" && err == nil {
				err = asked
				if err == nil && !strings.Contains(text, "can't take over, and the one before goes on") {
					err = errors.New("the upgrade is not given up")
				}
			}
			return err
		}))
		for _, c := range over {
			c.goesOn(u, step.name)
		}
		u.goOn()
		if t.Failed() {
			t.Fatalf("after %s", step.name)
		}
	}
	for _, c := range over {
		_ = c.conn.Close()
		u.people = append(u.people, c.unnoticedClient)
	}
	u.counted()
}

// quicClient is a client over QUIC whose connection rests while the daemon changes.
type quicClient struct {
	*unnoticedClient
	client *Client
	last   time.Time // when something passed last
}

func (u *unnoticed) overQUIC(rows []protocolRow) (all []*quicClient) {
	u.t.Helper()
	u.add(rows)
	u.synced()
	for _, r := range u.rows[len(u.rows)-len(rows):] {
		target, client := u.target(), u.clientOf(r, u.user)
		c := &quicClient{&unnoticedClient{row: r, target: target, conn: u.dial(client, target)}, client, time.Now()}
		must(u.t, Exchange(c.conn, 0, 1))
		all = append(all, c)
	}
	return all
}

// goesOn moves bytes, over another connection where the one before has ended.
func (c *quicClient) goesOn(u *unnoticed, after string) {
	u.t.Helper()
	err := exchangeWithin(c.conn, 3*time.Second, 100, 100)
	if err == nil {
		u.t.Logf("%s: the connection outlives %s", c.row.name, after)
		return
	}
	_ = c.conn.Close()
	must(u.t, Within(u.ctx, unnoticedLimit, func() error {
		conn, err := c.client.Dial(c.target.Addr())
		if err == nil {
			if c.conn = conn; exchangeWithin(conn, 3*time.Second, 100, 100) == nil {
				return nil
			}
			err = errors.Join(errors.New("nothing passes"), conn.Close())
		}
		return err
	}))
	u.t.Logf("%s: %s ended the connection (%v), and nothing passed for %d ms", c.row.name, after, err, time.Since(c.last).Milliseconds())
}
