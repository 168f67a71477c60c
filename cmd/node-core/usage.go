package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

// reportFlags are the flags of usage that sum up.
type reportFlags struct {
	by, since, until, step, zone string
	csv                          bool
}

func newUsageCmd(s *shared) *cobra.Command {
	var limit int
	var f reportFlags
	cmd := command(s, &cobra.Command{
		Use:   "usage",
		Short: "Show the usage rows: bytes per minute, inbound and client, the newest first; or sums of them",
		Long: "Show the usage rows: bytes per minute, inbound and client, the newest first. With --by, show sums by user,\n" +
			"subscription, node, protocol or group. Usage of more than 45 days ago is known by the hour.",
		Example: "  node-core usage --limit 20\n  node-core usage --output json\n  node-core usage --by user --since 30d\n" +
			"  node-core usage --by node --step day --since 2027-01-01 --until 2027-02-01 --timezone Europe/Berlin --csv",
		Args: cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (n named[coreapi.UsageRow], err error) {
		query, err := limited(limit)
		if err != nil {
			return n, err
		}
		rows, err := c.Usage(ctx, query)
		if err != nil {
			return n, err
		}
		return withNames(ctx, s, c, rows, func(r coreapi.UsageRow) (node, user, inbound int64) { return r.NodeID, r.UserID, r.NodeProtocolID })
	}, func(w io.Writer, n named[coreapi.UsageRow]) {
		line(w, "MINUTE", "NODE", "PROTOCOL", "USER", "SUBSCRIPTION", "UP", "DOWN")
		for _, r := range n.rows {
			line(w, r.RecordedAt, nameOr(n.nodes, r.NodeID), nameOr(n.inbounds, r.NodeProtocolID), nameOr(n.users, r.UserID), r.SubscriptionID, r.BytesUp, r.BytesDown)
		}
	})
	addLimit(cmd, &limit)
	flags := cmd.Flags()
	flags.StringVar(&f.by, "by", "", "sum up by user, subscription, node, protocol or group")
	flags.StringVar(&f.since, "since", "", "with --by: only later usage; a day (its beginning, UTC), a time, or a while ago such as 30d")
	flags.StringVar(&f.until, "until", "", "with --by: only earlier usage")
	flags.StringVar(&f.step, "step", "", "with --by: a sum for each minute, hour, day or month")
	flags.StringVar(&f.zone, "timezone", "UTC", "with --step: where days and months begin, such as Europe/Berlin")
	flags.BoolVar(&f.csv, "csv", false, "with --by: print CSV")
	rows := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		if f.by != "" {
			if !cmd.Flags().Changed("limit") {
				limit = 100_000
			}
			return s.report(cmd.Context(), f, limit)
		}
		for _, name := range []string{"since", "until", "step", "timezone", "csv"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s needs --by: without it, usage shows the newest rows as they are", name)
			}
		}
		return rows(cmd, words)
	}
	return cmd
}

// report prints sums of usage.
func (s *shared) report(ctx context.Context, f reportFlags, limit int) error {
	query, err := limited(limit)
	if err != nil {
		return err
	}
	query.Set("by", f.by)
	setText(query, "step", f.step)
	setText(query, "timezone", f.zone)
	for name, value := range map[string]string{"since": f.since, "until": f.until} {
		if value == "" {
			continue
		}
		at, err := parseMoment(value, time.Now())
		if err != nil {
			return fmt.Errorf("--%s: %w", name, err)
		}
		query.Set(name, at.UTC().Format(time.RFC3339Nano))
	}
	if f.csv && s.output == "json" {
		return errors.New("give either --csv or --output json")
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	report, err := client.UsageReport(ctx, query)
	if err != nil {
		return err
	}
	if report.Truncated {
		s.warn(fmt.Sprintf("there are more rows than %d; narrow --since and --until, or raise --limit", limit))
	}
	if f.csv {
		return writeCSV(s.std.out, report)
	}
	return printAnswer(s, report, func(w io.Writer, report coreapi.UsageReport) { showReport(w, report, f.step != "") })
}

func showReport(w io.Writer, report coreapi.UsageReport, steps bool) {
	if steps {
		line(w, "TIME", "ID", "NAME", "UP", "DOWN")
		for _, r := range report.Rows {
			line(w, r.Time, r.ID, r.Name, r.BytesUp, r.BytesDown)
		}
		line(w, "total", "", "", report.Totals.BytesUp, report.Totals.BytesDown)
		return
	}
	line(w, "ID", "NAME", "UP", "DOWN")
	for _, r := range report.Rows {
		line(w, r.ID, r.Name, r.BytesUp, r.BytesDown)
	}
	line(w, "total", "", report.Totals.BytesUp, report.Totals.BytesDown)
}

func writeCSV(to io.Writer, report coreapi.UsageReport) error {
	w := csv.NewWriter(to)
	_ = w.Write([]string{"time", "id", "name", "bytesUp", "bytesDown"})
	for _, r := range report.Rows {
		at := ""
		if r.Time != nil {
			at = r.Time.Format(time.RFC3339)
		}
		_ = w.Write([]string{at, strconv.FormatInt(r.ID, 10), printable(r.Name), strconv.FormatInt(r.BytesUp, 10), strconv.FormatInt(r.BytesDown, 10)})
	}
	w.Flush()
	return w.Error()
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
