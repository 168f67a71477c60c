package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newUsageCmd(s *shared) *cobra.Command {
	var args adminapi.LimitArgs
	cmd := command(s, &cobra.Command{
		Use:     "usage",
		Short:   "Show the usage rows: bytes per minute, inbound and client, the newest first",
		Example: "  node-core usage --limit 20\n  node-core usage --output json",
		Args:    cobra.NoArgs,
	}, adminapi.Usage, func([]string) (any, error) { return args, checkLimit(args.Limit) }, func(w io.Writer, rows []corestore.UsageRow) {
		line(w, "MINUTE", "NODE", "PROTOCOL", "USER", "SUBSCRIPTION", "UP", "DOWN")
		for _, r := range rows {
			line(w, r.RecordedAt, r.NodeID, r.NodeProtocolID, r.UserID, r.SubscriptionID, r.BytesUp, r.BytesDown)
		}
	})
	addLimit(cmd, &args)
	return cmd
}

func checkLimit(limit int) error {
	if limit < 1 {
		return fmt.Errorf("--limit %d shows nothing: want 1 or more", limit)
	}
	return nil
}

func addLimit(cmd *cobra.Command, args *adminapi.LimitArgs) {
	cmd.Flags().IntVar(&args.Limit, "limit", 1000, "how many rows to show at most")
}
