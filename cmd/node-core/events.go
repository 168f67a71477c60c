package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newEventsCmd(s *shared) *cobra.Command {
	var limit int
	cmd := command(s, &cobra.Command{
		Use:     "events",
		Short:   "Show which users came online and went offline, the newest last",
		Example: "  node-core events --limit 20\n  node-core events --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (n named[coreapi.EventRow], err error) {
		query, err := limited(limit)
		if err != nil {
			return n, err
		}
		rows, err := c.Events(ctx, query)
		if err != nil {
			return n, err
		}
		return withNames(ctx, s, c, rows)
	}, func(w io.Writer, n named[coreapi.EventRow]) {
		line(w, "TIME", "NODE", "USER", "PROTOCOL", "EVENT", "ADDRESS")
		for _, r := range n.rows {
			line(w, r.OccurredAt, nameOr(n.nodes, r.NodeID), nameOr(n.users, r.UserID), r.Protocol, r.EventType, r.IPAddress)
		}
	})
	addLimit(cmd, &limit)
	return cmd
}
