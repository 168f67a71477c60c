// Command demo shows the main job on one machine with nothing prepared. It starts a Core, an
// agent and a stock VPN client, moves bytes through the tunnel, and compares what Core counted
// with what the server behind the tunnel counted, to the byte. It leaves nothing running.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"nodeagent/internal/e2e"
)

const (
	megabyte = 1_000_000
	bytesUp  = 50 * megabyte
	bytesDn  = 20 * megabyte

	// config shortens the agent's intervals, so that the demo ends within seconds.
	config = `
[heartbeat]
interval = "500ms"
[accounting]
interval = "1s"
session_linger = "1s"
`
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

type demo struct {
	ctx   context.Context
	began time.Time
	dir   string
	progs e2e.Programs
	core  *e2e.Core
	agent *e2e.Agent

	telemt   string // path of telemt; empty where it is not installed
	telegram e2e.Protocol
	centre   *e2e.Target // stands in for Telegram and counts
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf("[%4.1fs] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "node-demo-*")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	d := &demo{ctx: ctx, began: time.Now(), dir: dir}
	d.say("building node-agent, node-core and a stock Xray client (the first time takes minutes)")
	if d.progs, err = e2e.Build(ctx, dir, ""); err != nil {
		return err
	}
	d.began = time.Now()
	if err := d.startCore(); err != nil {
		return err
	}
	defer d.core.Kill()
	d.findTelemt()
	sub, protocol, err := d.configure()
	if err != nil {
		return err
	}
	defer d.agent.Kill()
	if err := d.move(sub, protocol); err != nil {
		return err
	}
	fmt.Print("\nIt works. To go on:\n" +
		"  docs/operating.md     run it for real: install, register, watch\n" +
		"  docs/architecture.md  how it is built\n" +
		"  docs/protocol.md      what node and Core say to each other\n")
	return nil
}

func (d *demo) startCore() (err error) {
	d.say("node-core serve            a Core with a new SQLite database")
	d.core, err = e2e.NewCore(d.ctx, d.progs, filepath.Join(d.dir, "core"))
	return err
}

func (d *demo) configure() (sub e2e.Subscription, p e2e.Protocol, err error) {
	d.say("node-core node add         a node, which gets a join token")
	token, err := d.core.AddNode(d.ctx, "demo-node")
	if err != nil {
		return sub, p, err
	}
	d.say("node-core protocol add     a VLESS inbound on it")
	if p, err = d.core.AddVLESS(d.ctx, "demo-node"); err != nil {
		return sub, p, err
	}
	if err := d.configureTelegram(); err != nil {
		return sub, p, err
	}
	d.say("node-core user, subscription add")
	if sub, err = d.core.AddSubscriber(d.ctx, "alice"); err != nil {
		return sub, p, err
	}
	d.say("    %s", sub.Links[0])
	d.say("node-agent register        with the token")
	if d.agent, err = e2e.NewAgent(d.ctx, d.progs, filepath.Join(d.dir, "agent"), d.agentConfig(), token); err != nil {
		return sub, p, err
	}
	d.say("node-agent run             the daemon")
	if err := d.agent.Start(d.ctx); err != nil {
		return sub, p, err
	}
	if err := d.core.Synced(d.ctx, "demo-node"); err != nil {
		return sub, p, err
	}
	d.say("    Core says: synced")
	return sub, p, nil
}

func (d *demo) move(sub e2e.Subscription, p e2e.Protocol) error {
	outbound, err := e2e.VLESS(sub.Links[0])
	if err != nil {
		return err
	}
	d.say("xray run                   a stock client, from the link")
	client, err := e2e.NewClient(d.ctx, d.progs, filepath.Join(d.dir, "client"), outbound)
	if err != nil {
		return err
	}
	defer client.Kill()
	target, err := e2e.NewTarget()
	if err != nil {
		return err
	}
	defer target.Close()
	d.say("moving %d MB up and %d MB down through the tunnel", bytesUp/megabyte, bytesDn/megabyte)
	if err := client.Exchange(target.Addr(), bytesUp, bytesDn); err != nil {
		return fmt.Errorf("move bytes through the tunnel: %w", err)
	}
	if err := d.moveTelegram(sub); err != nil {
		return err
	}
	text, err := d.agent.StatusText(d.ctx)
	if err != nil {
		return err
	}
	d.say("node-agent status")
	fmt.Println(indent(text))
	d.say("stopping node-agent: it accounts and delivers its last bytes")
	if err := d.agent.Stop(); err != nil {
		return err
	}
	return d.compare(sub, p, target.Traffic())
}

// compare prints the usage and events that Core has. It returns an error where the usage
// differs from what the server behind the tunnel counted.
func (d *demo) compare(sub e2e.Subscription, p e2e.Protocol, counted e2e.Traffic) error {
	usage, err := d.core.Usage(d.ctx)
	if err != nil {
		return err
	}
	events, err := d.core.Events(d.ctx)
	if err != nil {
		return err
	}
	billed := usage[e2e.Account{User: sub.UserID, Protocol: p.ID}]
	d.say("node-core usage, events")
	fmt.Printf("    %-28s %12s %12s\n", "", "up", "down")
	fmt.Printf("    %-28s %12d %12d\n", "the server behind counted", counted.Up, counted.Down)
	fmt.Printf("    %-28s %12d %12d\n", "Core has for alice", billed.Up, billed.Down)
	var kinds []string
	for _, e := range events {
		fmt.Printf("    %s  alice %-8s %-8s %s\n", e.OccurredAt.Format(time.RFC3339Nano), e.EventType, e.Protocol, e.IPAddress)
		kinds = append(kinds, e.EventType)
	}
	switch {
	case billed != counted:
		return fmt.Errorf("the bytes differ: Core has %+v, the server counted %+v", billed, counted)
	case counted.Up < bytesUp || counted.Down < bytesDn:
		return fmt.Errorf("the server counted %+v, less than was sent", counted)
	case d.telemt == "" && !slices.Equal(kinds, []string{"online", "offline"}):
		return fmt.Errorf("the events are %q, want one online and one offline", kinds)
	}
	if err := d.compareTelegram(usage[e2e.Account{User: sub.UserID, Protocol: d.telegram.ID}]); err != nil {
		return err
	}
	d.say("the bytes agree")
	return nil
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
