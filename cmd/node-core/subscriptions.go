package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newSubscriptionCmd(s *shared) *cobra.Command {
	return group("subscription", "Subscriptions: what users connect with", "  node-core subscription add --user alice --limit 50GiB --period month\n  node-core subscription disable 1",
		newSubscriptionAddCmd(s), newSubscriptionEditCmd(s), newSubscriptionShowCmd(s), newSubscriptionListCmd(s),
		newSubscriptionDisableCmd(s), newSubscriptionEnableCmd(s), newSubscriptionRotateCmd(s), newSubscriptionResetCmd(s),
		newSubscriptionExtendCmd(s), newSubscriptionTopUpCmd(s), newSubscriptionRemoveCmd(s), newSubscriptionExportCmd(s))
}

func newSubscriptionAddCmd(s *shared) *cobra.Command {
	var sub coreapi.NewSubscription
	var expiry expiryFlags
	cmd := changing(s, &cobra.Command{
		Use:     "add",
		Short:   "Add a subscription for a user and print its links",
		Example: "  node-core subscription add --user alice\n  node-core subscription add --user alice --limit 10GiB --period month --expires 30d --limit-ips 3 --rate-down 50Mbit",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (added coreapi.SubscriptionDetails, change coreapi.Change, err error) {
		if sub.Expiry, err = expiry.expiry(); err != nil {
			return added, change, err
		}
		return c.AddSubscription(ctx, sub)
	}, showSubscription)
	cmd.Flags().StringVar(&sub.User, "user", "", "name or id of the user")
	addSubscriptionFlags(cmd, &sub.SubscriptionEdit, &expiry)
	_ = cmd.MarkFlagRequired("user")
	return cmd
}

func addSubscriptionFlags(cmd *cobra.Command, edit *coreapi.SubscriptionEdit, expiry *expiryFlags) {
	addOption(cmd.Flags(), &edit.Plan, "plan", "plan", "name or id of the plan whose terms it gets; the other flags replace some of them", asText)
	addOption(cmd.Flags(), &edit.Note, "note", "text", "a note for you", asText)
	addTerms(cmd.Flags(), &edit.TermsEdit)
	expiry.add(cmd.Flags())
}

func newSubscriptionEditCmd(s *shared) *cobra.Command {
	var edit coreapi.SubscriptionEdit
	var expiry expiryFlags
	cmd := changing(s, &cobra.Command{
		Use:     "edit ID|UUID",
		Short:   "Change the terms of a subscription; its links stay the same",
		Example: "  node-core subscription edit 1 --limit 20GiB --expires 2027-01-31\n  node-core subscription edit 1 --limit none --expires never --group family",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (edited coreapi.SubscriptionDetails, change coreapi.Change, err error) {
		if edit.Expiry, err = expiry.expiry(); err != nil {
			return edited, change, err
		}
		return c.EditSubscription(ctx, words[0], edit)
	}, showSubscription)
	addSubscriptionFlags(cmd, &edit, &expiry)
	return cmd
}

func newSubscriptionShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{
		Use:     "show ID|UUID",
		Short:   "Show a subscription and print its links",
		Example: "  node-core subscription show 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.SubscriptionDetails, error) {
		return c.Subscription(ctx, words[0])
	}, showSubscription)
}

func showSubscription(w io.Writer, a coreapi.SubscriptionDetails) {
	line(w, "subscription", a.ID, a.UUID)
	showTerms(w, a.Subscription)
	switch a.Status {
	case coreapi.Active, coreapi.OnHold:
	default:
		line(w, "it is "+a.Status+": its links let nobody in")
	}
	for _, link := range a.Links {
		line(w, link)
	}
	for _, why := range a.NoLinks {
		line(w, "no link for "+why)
	}
	if len(a.Links) == 0 && len(a.NoLinks) == 0 {
		line(w, fmt.Sprintf("no links yet: its group reaches no enabled inbound of any node; 'node-core group show %d' says which it reaches. Ask again with 'node-core subscription show %d'", a.GroupID, a.ID))
	}
	if a.URL != "" { // a Core of an earlier version says none
		line(w, "applications fetch all of them from "+a.URL)
		for _, mirror := range a.Mirrors {
			line(w, "or from "+mirror)
		}
	}
	if a.Fetched != nil {
		line(w, "fetched last", a.Fetched.At, "by "+a.Fetched.UserAgent)
	}
	if a.Devices > 0 {
		line(w, fmt.Sprintf("%d devices have fetched it; 'node-core device list %d' shows them", a.Devices, a.ID))
	}
}

// showTerms prints what a subscription has beside its credentials: nothing for one that was
// added without terms.
func showTerms(w io.Writer, sub coreapi.Subscription) {
	if sub.Note != "" {
		line(w, "note", sub.Note)
	}
	if sub.GroupID != coreapi.DefaultGroup {
		line(w, "group", sub.GroupID)
	}
	if sub.PlanID != 0 {
		line(w, "plan", sub.PlanID)
	}
	if sub.LimitBytes > 0 {
		line(w, "limit", bytesText(sub.UsedBytes)+" of "+bytesText(sub.LimitBytes)+after(" and ", extraText(sub.ExtraBytes))+" used"+after(", period ", periodText(sub.Period)))
	}
	switch {
	case sub.Status == coreapi.OnHold:
		line(w, "expires", lifeText(sub.ExpiresAfterSeconds)+" after the first use")
		if sub.StartsBy != nil {
			line(w, "begins by", sub.StartsBy)
		}
	case sub.ExpiresAt != nil:
		line(w, "expires", sub.ExpiresAt)
	}
	showLimits(w, sub.Terms)
}

func showLimits(w io.Writer, t coreapi.Terms) {
	if t.LimitIPs > 0 || t.LimitConnections > 0 {
		line(w, "at a time", fmt.Sprintf("%s addresses, %s connections", orAny(t.LimitIPs), orAny(t.LimitConnections)))
	}
	if t.LimitDevices > 0 {
		line(w, "devices", fmt.Sprintf("at most %d", t.LimitDevices))
	}
	if t.RateUpBitsPerSecond > 0 || t.RateDownBitsPerSecond > 0 {
		line(w, "rate", "up "+rateText(t.RateUpBitsPerSecond)+", down "+rateText(t.RateDownBitsPerSecond))
	}
}

// orAny is a limit as a table shows it.
func orAny(n int64) string {
	if n == 0 {
		return "any number of"
	}
	return fmt.Sprint(n)
}

func periodText(period string) string {
	if period == "none" {
		return ""
	}
	return period
}

// lifeText is a while in days, or in hours where it is no whole number of days.
func lifeText(seconds int64) string {
	switch {
	case seconds == 0:
		return "never"
	case seconds%(24*3600) == 0:
		return fmt.Sprintf("%dd", seconds/(24*3600))
	case seconds%3600 == 0:
		return fmt.Sprintf("%dh", seconds/3600)
	}
	return fmt.Sprintf("%ds", seconds)
}

func newSubscriptionListCmd(s *shared) *cobra.Command {
	var status, user, group, plan, search, sort string
	var limit int
	var long bool
	cmd := command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the subscriptions with their traffic in bytes",
		Example: "  node-core subscription list\n  node-core subscription list --status expired --long\n  node-core subscription list --search alice --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Subscription, error) {
		query := wholeList()
		for name, value := range map[string]string{"status": status, "user": user, "group": group, "plan": plan, "search": search, "sort": sort} {
			setText(query, name, value)
		}
		return coreapi.Collect(atMost(limit, c.Subscriptions(ctx, query)))
	}, func(w io.Writer, subs []coreapi.Subscription) {
		if !long {
			line(w, "ID", "UUID", "USER", "ENABLED", "UP", "DOWN")
			for _, sub := range subs {
				line(w, sub.ID, sub.UUID, sub.UserID, sub.Enabled, sub.BytesUp, sub.BytesDown)
			}
			return
		}
		line(w, "ID", "USER", "STATUS", "GROUP", "USED", "LIMIT", "PERIOD", "EXPIRES", "NOTE")
		for _, sub := range subs {
			line(w, sub.ID, sub.UserName, sub.Status, sub.GroupID, bytesText(sub.UsedBytes), bytesText(sub.LimitBytes), sub.Period, sub.ExpiresAt, sub.Note)
		}
	})
	flags := cmd.Flags()
	flags.StringVar(&status, "status", "", "only those that are "+strings.Join(coreapi.Statuses, ", "))
	flags.StringVar(&user, "user", "", "only those of the user with this name or id")
	flags.StringVar(&group, "group", "", "only those in the group with this name or id")
	flags.StringVar(&plan, "plan", "", "only those of the plan with this name or id")
	flags.StringVar(&search, "search", "", "only those whose user's name or note has this text, or whose UUID it is")
	flags.StringVar(&sort, "sort", "", "the order: id, user or expires, or one of them with a - before it (default id)")
	flags.IntVar(&limit, "limit", 0, "how many to show at most (default all)")
	flags.BoolVar(&long, "long", false, "show names, status, limits and expiry")
	return cmd
}

func newSubscriptionDisableCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "disable ID|UUID",
		Short:   "Cut a subscription off on every node",
		Example: "  node-core subscription disable 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Subscription, coreapi.Change, error) {
		return c.DisableSubscription(ctx, words[0])
	}, func(w io.Writer, sub coreapi.Subscription) { line(w, "disabled", sub.ID, sub.UUID) })
}

func newSubscriptionEnableCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "enable ID|UUID",
		Short:   "Let a disabled subscription in again; its links stay the same",
		Example: "  node-core subscription enable 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Subscription, coreapi.Change, error) {
		return c.EnableSubscription(ctx, words[0])
	}, func(w io.Writer, sub coreapi.Subscription) { line(w, "enabled", sub.ID, sub.UUID) })
}

func newSubscriptionRotateCmd(s *shared) *cobra.Command {
	var link bool
	cmd := asking(s, changing(s, &cobra.Command{
		Use:     "rotate ID|UUID",
		Short:   "Give a subscription another UUID and secret, and print the links; the links of before let nobody in",
		Example: "  node-core subscription rotate 1 --yes\n  node-core subscription rotate 1 --link --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.SubscriptionDetails, coreapi.Change, error) {
		if link {
			return c.RotateSubscriptionLink(ctx, words[0])
		}
		return c.RotateSubscription(ctx, words[0])
	}, showSubscription), true, func(words []string) string {
		if link {
			return "Give subscription " + words[0] + " another link of its own? Applications can't fetch it by the link of now any more"
		}
		return "Give subscription " + words[0] + " other credentials? Its links of now let nobody in any more"
	})
	cmd.Flags().BoolVar(&link, "link", false, "change only the subscription's own link, which applications fetch; nobody is cut")
	return cmd
}

func newSubscriptionResetCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "reset ID|UUID",
		Short:   "Count the bytes of a subscription's period anew; its sums and usage rows are kept",
		Example: "  node-core subscription reset 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Subscription, coreapi.Change, error) {
		return c.ResetSubscription(ctx, words[0])
	}, func(w io.Writer, sub coreapi.Subscription) { line(w, "reset", sub.ID, sub.UUID) })
}

func newSubscriptionExtendCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "extend ID|UUID WHILE",
		Short:   "Move the end of a subscription: from now on where it is over, and from the end where it is not",
		Example: "  node-core subscription extend 1 30d",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Subscription, coreapi.Change, error) {
		while, err := parseExpiry(words[1])
		if err != nil || while.AfterSeconds == 0 {
			return coreapi.Subscription{}, coreapi.Change{}, fmt.Errorf("%q is no while: want one such as 12h, 30d or 1y", words[1])
		}
		return c.ExtendSubscription(ctx, words[0], coreapi.Extension{Seconds: while.AfterSeconds})
	}, func(w io.Writer, sub coreapi.Subscription) {
		line(w, "extended", sub.ID, sub.Status)
		showTerms(w, sub)
	})
}

func newSubscriptionTopUpCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "top-up ID|UUID BYTES",
		Short:   "Give a subscription more bytes in the period that it is in",
		Example: "  node-core subscription top-up 1 10GiB",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Subscription, coreapi.Change, error) {
		bytes, err := parseBytes(words[1])
		if err != nil {
			return coreapi.Subscription{}, coreapi.Change{}, err
		}
		return c.TopUpSubscription(ctx, words[0], coreapi.TopUp{Bytes: bytes})
	}, func(w io.Writer, sub coreapi.Subscription) {
		line(w, "topped up", sub.ID, sub.Status)
		showTerms(w, sub)
	})
}

// extraText is what a period has beside the limit; empty for nothing.
func extraText(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return bytesText(bytes)
}

func newSubscriptionRemoveCmd(s *shared) *cobra.Command {
	return asking(s, changing(s, &cobra.Command{
		Use:     "remove ID|UUID",
		Short:   "Remove a subscription for good; its usage rows are kept",
		Example: "  node-core subscription remove 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
		return c.RemoveSubscription(ctx, words[0])
	}, showRemoved), false, func(words []string) string {
		return "Remove subscription " + words[0] + "? Its links let nobody in any more"
	})
}
