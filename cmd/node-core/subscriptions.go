package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newSubscriptionCmd(s *shared) *cobra.Command {
	return group("subscription", "Subscriptions: what users connect with", "  node-core subscription add --user alice\n  node-core subscription disable 1",
		newSubscriptionAddCmd(s), newSubscriptionShowCmd(s), newSubscriptionListCmd(s),
		newSubscriptionDisableCmd(s), newSubscriptionEnableCmd(s), newSubscriptionRemoveCmd(s))
}

func newSubscriptionAddCmd(s *shared) *cobra.Command {
	var sub coreapi.NewSubscription
	cmd := changing(s, &cobra.Command{
		Use:     "add",
		Short:   "Add a subscription for a user and print its links",
		Example: "  node-core subscription add --user alice",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (coreapi.SubscriptionDetails, coreapi.Change, error) {
		return c.AddSubscription(ctx, sub)
	}, showSubscription)
	cmd.Flags().StringVar(&sub.User, "user", "", "name or id of the user")
	_ = cmd.MarkFlagRequired("user")
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
	if !a.Enabled {
		line(w, "it is disabled: its links let nobody in")
	}
	for _, link := range a.Links {
		line(w, link)
	}
	for _, why := range a.NoLinks {
		line(w, "no link for "+why)
	}
	if len(a.Links) == 0 && len(a.NoLinks) == 0 {
		line(w, fmt.Sprintf("no links yet: no registered node has a protocol with links; ask again with 'node-core subscription show %d'", a.ID))
	}
}

func newSubscriptionListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the subscriptions with their traffic in bytes",
		Example: "  node-core subscription list\n  node-core subscription list --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Subscription, error) {
		return coreapi.Collect(c.Subscriptions(ctx, wholeList()))
	}, func(w io.Writer, subs []coreapi.Subscription) {
		line(w, "ID", "UUID", "USER", "ENABLED", "UP", "DOWN")
		for _, sub := range subs {
			line(w, sub.ID, sub.UUID, sub.UserID, sub.Enabled, sub.BytesUp, sub.BytesDown)
		}
	})
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

func newSubscriptionRemoveCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "remove ID|UUID",
		Short:   "Remove a subscription for good; its usage rows are kept",
		Example: "  node-core subscription remove 1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
		return c.RemoveSubscription(ctx, words[0])
	}, showRemoved)
}
