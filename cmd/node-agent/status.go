package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/agent"
	"nodeagent/internal/cli"
	"nodeagent/store"
	"nodeagent/xray/ipc"
)

func newStatusCmd(std streams) *cobra.Command {
	var flags settingFlags
	var output cli.Output
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the running daemon",
		Long: "Show the state of the running daemon. The exit code is 3 where no daemon runs.\n" +
			"With --check the exit code is 0 only where all is well, and otherwise that of the worst problem:\n" +
			"4 clients are not served, 5 Core's configuration is refused, at least in part, 6 Core does not\n" +
			"accept the node's key, 7 Core does not answer, 8 clients are served and a person is needed.",
		Example: "  node-agent status\n  node-agent status --output json | jq .revision\n  node-agent status --check >/dev/null",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.load()
			if err != nil {
				return err
			}
			status, err := askStatus(cmd.Context(), s.RuntimeDir)
			if err != nil {
				return err
			}
			if output == cli.JSON {
				err = json.NewEncoder(std.out).Encode(status)
			} else {
				err = printStatus(std.out, status, time.Now())
			}
			if err == nil && check && len(status.Problems) > 0 {
				return problemsError(status.Problems)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 0 only where all is well, for monitors")
	flags.add(cmd.Flags(), "config", "runtime-dir")
	output.AddTo(cmd.Flags())
	return cmd
}

func printStatus(out io.Writer, s agent.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { // Core names tags, and anybody may be in a reason
		_, _ = fmt.Fprintf(w, "%s\t%s\n", cli.Printable(name), cli.Printable(fmt.Sprintf(format, args...)))
	}
	row("node", "%s (node-agent %s)", s.NodeID, s.Version)
	row("core", "%s", s.Core.URL)
	row("last heartbeat", "%s", heartbeatText(s.Core, now))
	row("clock", "%s", clockText(s.Core.SkewSeconds))
	for i, problem := range s.Problems {
		name := "problems"
		if i > 0 {
			name = ""
		}
		row(name, "%s", problemText(problem))
	}
	for _, n := range s.Core.NotCore {
		row("not Core", "since %s: %s", n.Since.Format(time.RFC3339), n.Answer)
	}
	if len(s.Core.NotCore) > 0 {
		row("", "clients are served on, and what waits for Core is kept")
	}
	row("revision", "%s running, %s wanted", revision(s.Revision.Running), revision(s.Revision.Wanted))
	x := s.Engines.Xray
	row("xray", "%s%s, %d streams, %d restarts", cmp.Or(x.State, "stopped"), parenthesised(x.Version), x.Streams, x.Restarts)
	if x.Confined != "" {
		row("", "confined by %s", x.Confined)
	}
	if x.LastRestart != "" {
		row("", "last restart: %s", x.LastRestart)
	}
	if r := x.Refused; r != (ipc.Refused{}) {
		more := ""
		if r.Grants > 0 {
			more += fmt.Sprintf(", %d after the end of a grant", r.Grants)
		}
		if r.Node > 0 {
			more += fmt.Sprintf(", %d to the node itself", r.Node)
		}
		row("", "refused streams: %d at a connection limit, %d at an address limit, %d of strangers%s", r.Connections, r.Addresses, r.Strangers, more)
	}
	if len(x.RefusedConnections) > 0 {
		row("", "refused connections: %s", refusedConnections(x.RefusedConnections))
	}
	if x.HeldBack > 0 {
		row("", "held back at a rate: streams waited %.0f s, all together", x.HeldBack)
	}
	for _, warning := range x.Warnings {
		row("", "warning: %s", warning)
	}
	for _, warning := range s.Engines.MTProto.Warnings {
		row("", "warning: %s", oneLine(warning))
	}
	for _, in := range x.Inbounds {
		row("  "+in.Tag, "%s %s, %d clients%s", in.Protocol, in.State, in.Clients, parenthesised(in.Error))
	}
	for _, in := range s.Engines.MTProto.Inbounds {
		row("  "+in.Tag, "mtproto %s, %d clients%s", in.State, in.Clients, parenthesised(in.Error))
	}
	row("clients online", "%d", s.Online)
	if s.EndedByGrant > 0 {
		row("ended by a grant", "%d clients, until Core grants them more", s.EndedByGrant)
	}
	row("outbox", "%s", outboxText(s.Outbox))
	row("state file", "%d of %d bytes in use", s.Outbox.UsedBytes, s.Outbox.LimitBytes)
	if s.Error != nil {
		over := ""
		if s.Error.Over {
			over = " (over)"
		}
		row("last error", "%s%s: %s", s.Error.At.Format(time.RFC3339), over, oneLine(s.Error.Message))
	}
	return w.Flush()
}

// refusedConnections is the number of connections that were refused, by inbound.
func refusedConnections(counts map[string]int64) string {
	var parts []string
	for _, tag := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[tag], cmp.Or(tag, "over HTTP")))
	}
	return strings.Join(parts, ", ")
}

func heartbeatText(c agent.CoreStatus, now time.Time) string {
	switch {
	case c.AgeSeconds != nil:
		return fmt.Sprintf("%s (%.0f s ago)", c.LastHeartbeat.Format(time.RFC3339), *c.AgeSeconds)
	case c.AskedAt.IsZero():
		return "none yet"
	}
	return fmt.Sprintf("none answered yet; Core was asked %.0f s ago", now.Sub(c.AskedAt).Seconds())
}

// clockText says how this host's clock differs from Core's, by skew in seconds.
func clockText(skew float64) string {
	switch {
	case skew < 0:
		return fmt.Sprintf("%.0f s behind Core's", -skew)
	case skew > 0:
		return fmt.Sprintf("%.0f s ahead of Core's", skew)
	}
	return "as Core's"
}

// problemText puts a problem into one line.
func problemText(p agent.Problem) string {
	text := oneLine(p.Message)
	if !p.Since.IsZero() {
		text += ", since " + p.Since.Format(time.RFC3339)
	}
	return text
}

func revision(r *int64) string {
	if r == nil {
		return "none"
	}
	return fmt.Sprint(*r)
}

func parenthesised(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

func outboxText(w store.Waiting) string {
	var parts []string
	for _, kind := range store.Kinds {
		if n := w.Batches[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	text := "empty"
	if len(parts) > 0 {
		text = strings.Join(parts, ", ") + " batches wait, the oldest since " + w.Oldest.Format(time.RFC3339)
	}
	if w.Aside > 0 {
		text += fmt.Sprintf("; %d set aside", w.Aside)
	}
	if w.Damaged > 0 {
		text += fmt.Sprintf("; %d damaged", w.Damaged)
	}
	return text
}

// oneLine puts a text that may have several lines into one.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
