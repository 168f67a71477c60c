package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
	"nodeagent/internal/cli"
)

// eventFlags say which events are shown.
type eventFlags struct {
	limit  int
	follow bool
	after  int64
	kinds  []string
}

func newEventsCmd(s *shared) *cobra.Command {
	var f eventFlags
	cmd := command(s, &cobra.Command{
		Use:   "events",
		Short: "Show which users came online and went offline, or what else has happened",
		Long: "Show which users came online and went offline, the newest last. With --after or --follow it shows\n" +
			"other events, the newest last: of nodes that go offline, of subscriptions that end. --follow goes on\n" +
			"until it is interrupted, and over restarts of Core, and misses nothing in between.",
		Example: "  node-core events --limit 20\n  node-core events --follow --output json\n  node-core events --after 0 --event node.offline,node.online",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (n named[coreapi.EventRow], err error) {
		query, err := limited(f.limit)
		if err != nil {
			return n, err
		}
		rows, err := c.Events(ctx, query)
		if err != nil {
			return n, err
		}
		return withNames(ctx, s, c, rows, func(r coreapi.EventRow) (node, user, inbound int64) { return r.NodeID, r.UserID, 0 })
	}, func(w io.Writer, n named[coreapi.EventRow]) {
		line(w, "TIME", "NODE", "USER", "PROTOCOL", "EVENT", "ADDRESS")
		for _, r := range n.rows {
			line(w, r.OccurredAt, nameOr(n.nodes, r.NodeID), nameOr(n.users, r.UserID), r.Protocol, r.EventType, r.IPAddress)
		}
	})
	sessions := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		if f.follow || cmd.Flags().Changed("after") {
			return s.showEvents(cmd, f)
		}
		if len(f.kinds) > 0 {
			return errors.New("--event goes with --after or --follow")
		}
		return sessions(cmd, words)
	}
	addLimit(cmd, &f.limit)
	cmd.Flags().BoolVar(&f.follow, "follow", false, "show events as they come, until it is interrupted")
	cmd.Flags().Int64Var(&f.after, "after", 0, "show what came after the event with this id; 0 is before the first (default with --follow only what comes now)")
	cmd.Flags().StringSliceVar(&f.kinds, "event", nil, "with --after or --follow: only events of these kinds, divided by commas")
	return cmd
}

// showEvents shows Core's events: all that there are, or as they come.
func (s *shared) showEvents(cmd *cobra.Command, f eventFlags) error {
	if _, err := limited(f.limit); err != nil {
		return err
	}
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var kinds []coreapi.EventKind
	for _, k := range f.kinds {
		kinds = append(kinds, coreapi.EventKind(k))
	}
	if f.follow {
		if !cmd.Flags().Changed("limit") {
			f.limit = math.MaxInt
		}
		after := int64(-1)
		if cmd.Flags().Changed("after") {
			after = f.after
		}
		for e, err := range client.FollowEvents(cmd.Context(), after, kinds...) {
			if err != nil {
				return err
			}
			if err := s.showEvent(e); err != nil {
				return err
			}
			if f.limit--; f.limit == 0 {
				return nil
			}
		}
		return nil
	}
	const perPage = 1000
	for after, shown := f.after, 0; ; {
		want := min(perPage, f.limit-shown)
		page, err := client.EventsAfter(cmd.Context(), after, want, kinds...)
		if err != nil {
			return err
		}
		if page.Lost {
			s.warn("events after this one are lost: they are too old, or too many, or Core was restored from a backup")
		}
		for _, e := range page.Events {
			if err := s.showEvent(e); err != nil {
				return err
			}
		}
		after, shown = page.Next, shown+len(page.Events)
		if len(page.Events) < want || shown == f.limit {
			return nil
		}
	}
}

// showEvent writes an event at once, in a line of its own.
func (s *shared) showEvent(e coreapi.Event) error {
	if e.Kind == coreapi.EventsLost {
		s.warn("events were lost before they were read: they are too old, or too many, or Core was restored from a backup")
		return nil
	}
	if s.output == cli.JSON {
		return json.NewEncoder(s.std.out).Encode(e)
	}
	about := e.Node + after(" ", e.User)
	if e.SubscriptionID != 0 {
		about += fmt.Sprintf(" subscription %d", e.SubscriptionID)
	}
	_, err := fmt.Fprintln(s.std.out, printable(fmt.Sprintf("%s %d %s %s %s", text(e.At), e.ID, e.Kind, about, e.Data)))
	return err
}
