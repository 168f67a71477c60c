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

<<<<<<< HEAD:cmd/node-core/usage.go
=======
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

>>>>>>> 76d3c8c (Show an example in the help of every command):cmd/node-core/records.go
func checkLimit(limit int) error {
	if limit < 1 {
		return fmt.Errorf("--limit %d shows nothing: want 1 or more", limit)
	}
	return nil
}

func addLimit(cmd *cobra.Command, args *adminapi.LimitArgs) {
	cmd.Flags().IntVar(&args.Limit, "limit", 1000, "how many rows to show at most")
}
