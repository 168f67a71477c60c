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
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.EventRow, error) {
		query, err := limited(limit)
		if err != nil {
			return nil, err
		}
		return c.Events(ctx, query)
	}, func(w io.Writer, rows []coreapi.EventRow) {
		line(w, "TIME", "NODE", "USER", "PROTOCOL", "EVENT", "ADDRESS")
		for _, r := range rows {
			line(w, r.OccurredAt, r.NodeID, r.UserID, r.Protocol, r.EventType, r.IPAddress)
		}
	})
	addLimit(cmd, &limit)
	return cmd
}
