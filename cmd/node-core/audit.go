package main

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newAuditCmd(s *shared) *cobra.Command {
	var since, who string
	var limit int
	cmd := command(s, &cobra.Command{
		Use:     "audit",
		Short:   "Show who changed what, the newest last",
		Example: "  node-core audit --since 7d\n  node-core audit --who billing --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.AuditEntry, error) {
		if _, err := limited(limit); err != nil {
			return nil, err
		}
		query := wholeList()
		query.Set("sort", "-id")
		setText(query, "who", who)
		if since != "" {
			at, err := parseMoment(since, time.Now())
			if err != nil {
				return nil, err
			}
			query.Set("since", at.UTC().Format(time.RFC3339Nano))
		}
		entries, err := coreapi.Collect(atMost(limit, c.Audit(ctx, query)))
		slices.Reverse(entries)
		return entries, err
	}, func(w io.Writer, entries []coreapi.AuditEntry) {
		line(w, "TIME", "WHO", "ROLE", "OPERATION", "TARGET", "DETAILS")
		for _, e := range entries {
			line(w, e.At, e.Who, e.Role, e.Operation, e.Target, string(e.Details))
		}
	})
	cmd.Flags().StringVar(&since, "since", "", "only later entries: a day such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, or a while ago such as 7d")
	cmd.Flags().StringVar(&who, "who", "", "only entries of the token with this name, or of the socket")
	addLimit(cmd, &limit)
	return cmd
}
