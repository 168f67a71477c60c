package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newUsageCmd(s *shared) *cobra.Command {
	var limit int
	cmd := command(s, &cobra.Command{
		Use:     "usage",
		Short:   "Show the usage rows: bytes per minute, inbound and client, the newest first",
		Example: "  node-core usage --limit 20\n  node-core usage --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (n named[coreapi.UsageRow], err error) {
		query, err := limited(limit)
		if err != nil {
			return n, err
		}
		rows, err := c.Usage(ctx, query)
		if err != nil {
			return n, err
		}
		return withNames(ctx, s, c, rows)
	}, func(w io.Writer, n named[coreapi.UsageRow]) {
		line(w, "MINUTE", "NODE", "PROTOCOL", "USER", "SUBSCRIPTION", "UP", "DOWN")
		for _, r := range n.rows {
			line(w, r.RecordedAt, nameOr(n.nodes, r.NodeID), nameOr(n.inbounds, r.NodeProtocolID), nameOr(n.users, r.UserID), r.SubscriptionID, r.BytesUp, r.BytesDown)
		}
	})
	addLimit(cmd, &limit)
	return cmd
}

// limited is the query for the newest rows.
func limited(limit int) (url.Values, error) {
	if limit < 1 {
		return nil, fmt.Errorf("--limit %d shows nothing: want 1 or more", limit)
	}
	return url.Values{"limit": {strconv.Itoa(limit)}}, nil
}

func addLimit(cmd *cobra.Command, limit *int) {
	cmd.Flags().IntVar(limit, "limit", 1000, "how many rows to show at most")
}
