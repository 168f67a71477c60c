package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
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
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the state of the running daemon",
		Long:    "Show the state of the running daemon. The exit code is 3 where no daemon runs.",
		Example: "  node-agent status\n  node-agent status --output json | jq .revision",
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
				return json.NewEncoder(std.out).Encode(status)
			}
			return printStatus(std.out, status)
		},
	}
	flags.add(cmd.Flags(), "config", "runtime-dir")
	output.AddTo(cmd.Flags())
	return cmd
}

func printStatus(out io.Writer, s agent.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { _, _ = fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("node", "%s (node-agent %s)", s.NodeID, s.Version)
	row("core", "%s", s.Core.URL)
	row("last heartbeat", "%s", heartbeatText(s.Core))
	if s.Core.Rejected != "" {
		row("", "Core does not accept this node's key: %s", s.Core.Rejected)
		row("", "clients are served on; register again, or have the key allowed in Core")
	}
	row("clock", "%+.0f s against Core's", s.Core.SkewSeconds)
	row("revision", "%s running, %s wanted", revision(s.Revision.Running), revision(s.Revision.Wanted))
	x := s.Engines.Xray
	row("xray", "%s%s, %d streams, %d restarts", cmp.Or(x.State, "stopped"), parenthesised(x.Version), x.Streams, x.Restarts)
	if x.LastRestart != "" {
		row("", "last restart: %s", x.LastRestart)
	}
	if r := x.Refused; r != (ipc.Refused{}) {
		row("", "refused streams: %d at a connection limit, %d at an address limit, %d of strangers", r.Connections, r.Addresses, r.Strangers)
	}
	if x.HeldBack > 0 {
		row("", "held back at a rate: streams waited %.0f s, all together", x.HeldBack)
	}
	if e := x.Exhausted; e != nil {
		row("", "since %s, last at %s: %s", e.Since.Format(time.RFC3339), e.Last.Format(time.RFC3339), e.Message)
	}
	for _, warning := range x.Warnings {
		row("", "warning: %s", warning)
	}
	for _, in := range x.Inbounds {
		row("  "+in.Tag, "%s %s, %d clients%s", in.Protocol, in.State, in.Clients, parenthesised(in.Error))
	}
	for _, in := range s.Engines.MTProto.Inbounds {
		row("  "+in.Tag, "mtproto %s, %d clients%s", in.State, in.Clients, parenthesised(in.Error))
	}
	row("clients online", "%d", s.Online)
	row("outbox", "%s", outboxText(s.Outbox))
	row("state file", "%d of %d bytes in use", s.Outbox.UsedBytes, s.Outbox.LimitBytes)
	if s.Error != nil {
		row("last error", "%s: %s", s.Error.At.Format(time.RFC3339), s.Error.Message)
	}
	return w.Flush()
}

func heartbeatText(c agent.CoreStatus) string {
	if c.AgeSeconds == nil {
		return "none yet"
	}
	return fmt.Sprintf("%s (%.0f s ago)", c.LastHeartbeat.Format(time.RFC3339), *c.AgeSeconds)
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
	return text
}
