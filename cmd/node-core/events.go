package main

import (
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newEventsCmd(s *shared) *cobra.Command {
	var args adminapi.LimitArgs
	cmd := command(s, &cobra.Command{
		Use:     "events",
		Short:   "Show which users came online and went offline, the newest last",
		Example: "  node-core events --limit 20\n  node-core events --output json",
		Args:    cobra.NoArgs,
	}, adminapi.Events, func([]string) (any, error) { return args, checkLimit(args.Limit) }, func(w io.Writer, rows []corestore.EventRow) {
		line(w, "TIME", "NODE", "USER", "PROTOCOL", "EVENT", "ADDRESS")
		for _, r := range rows {
			line(w, r.OccurredAt, r.NodeID, r.UserID, r.Protocol, r.EventType, r.IPAddress)
		}
	})
	addLimit(cmd, &args)
	return cmd
}
