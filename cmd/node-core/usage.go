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
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.UsageRow, error) {
		query, err := limited(limit)
		if err != nil {
			return nil, err
		}
		return c.Usage(ctx, query)
	}, func(w io.Writer, rows []coreapi.UsageRow) {
		line(w, "MINUTE", "NODE", "PROTOCOL", "USER", "SUBSCRIPTION", "UP", "DOWN")
		for _, r := range rows {
			line(w, r.RecordedAt, r.NodeID, r.NodeProtocolID, r.UserID, r.SubscriptionID, r.BytesUp, r.BytesDown)
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
