package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newPlanCmd(s *shared) *cobra.Command {
	return group("plan", "Plans: templates of subscriptions' terms", "  node-core plan add basic --limit 50GiB --period month --expires 30d\n  node-core subscription add --user alice --plan basic",
		unawaited(newPlanAddCmd(s)), newPlanListCmd(s), newPlanShowCmd(s), unawaited(newPlanEditCmd(s)), unawaited(newPlanRemoveCmd(s)))
}

// planCmd completes a command that sets a plan's terms, which ask does.
func planCmd(s *shared, cmd *cobra.Command, ask func(ctx context.Context, c *coreapi.Client, plan string, edit coreapi.PlanEdit) (coreapi.Plan, error), done string, rename bool) *cobra.Command {
	var edit coreapi.PlanEdit
	var expiry expiryFlags
	cmd = command(s, cmd, func(ctx context.Context, c *coreapi.Client, words []string) (plan coreapi.Plan, err error) {
		if edit.Expiry, err = expiry.expiry(); err != nil {
			return plan, err
		}
		return ask(ctx, c, words[0], edit)
	}, func(w io.Writer, p coreapi.Plan) { line(w, done, p.ID, p.Name) })
	if rename {
		addOption(cmd.Flags(), &edit.Name, "name", "name", "another name", asText)
	}
	addOption(cmd.Flags(), &edit.Note, "note", "text", "a note for you", asText)
	addTerms(cmd.Flags(), &edit.TermsEdit)
	expiry.add(cmd.Flags())
	return cmd
}

func newPlanAddCmd(s *shared) *cobra.Command {
	return planCmd(s, &cobra.Command{
		Use: "add NAME", Short: "Add a plan", Example: "  node-core plan add basic --limit 50GiB --period month --expires 30d --from-first-use", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, plan string, edit coreapi.PlanEdit) (coreapi.Plan, error) {
		return c.AddPlan(ctx, coreapi.NewPlan{Name: plan, Note: edit.Note, TermsEdit: edit.TermsEdit})
	}, "added", false)
}

func newPlanEditCmd(s *shared) *cobra.Command {
	return planCmd(s, &cobra.Command{
		Use: "edit NAME|ID", Short: "Change a plan; subscriptions that were added with it keep their terms", Example: "  node-core plan edit basic --limit 100GiB", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, plan string, edit coreapi.PlanEdit) (coreapi.Plan, error) {
		return c.EditPlan(ctx, plan, edit)
	}, "edited", true)
}

func newPlanListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the plans", Example: "  node-core plan list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Plan, error) { return c.Plans(ctx) }, func(w io.Writer, plans []coreapi.Plan) {
			line(w, "ID", "NAME", "GROUP", "LIMIT", "PERIOD", "EXPIRES", "IPS", "CONNECTIONS", "UP", "DOWN")
			for _, p := range plans {
				line(w, p.ID, p.Name, p.GroupID, bytesText(p.LimitBytes), p.Period, lifeText(p.ExpiresAfterSeconds), p.LimitIPs, p.LimitConnections, rateText(p.RateUpBitsPerSecond), rateText(p.RateDownBitsPerSecond))
			}
		})
}

func newPlanShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a plan", Example: "  node-core plan show basic", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Plan, error) {
			return c.Plan(ctx, words[0])
		}, func(w io.Writer, p coreapi.Plan) {
			line(w, "plan", p.ID, p.Name)
			if p.Note != "" {
				line(w, "note", p.Note)
			}
			line(w, "group", p.GroupID)
			line(w, "limit", bytesText(p.LimitBytes)+after(", period ", periodText(p.Period)))
			life := lifeText(p.ExpiresAfterSeconds)
			if p.FromFirstUse {
				life += " after the first use"
			}
			line(w, "expires", life)
			showLimits(w, p.Terms)
		})
}

func newPlanRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME|ID", Short: "Remove a plan; subscriptions that were added with it keep their terms", Example: "  node-core plan remove basic", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemovePlan(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove plan " + words[0] + "?" })
}
