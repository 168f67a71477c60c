package main

import (
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newPlanCmd(s *shared) *cobra.Command {
	return group("plan", "Plans: templates of subscriptions' terms", "  node-core plan add basic --limit 50GiB --period month --expires 30d\n  node-core subscription add --user alice --plan basic",
		newPlanAddCmd(s), newPlanListCmd(s), newPlanShowCmd(s), newPlanEditCmd(s), newPlanRemoveCmd(s))
}

func planArgs(words []string) (any, error) { return adminapi.PlanArgs{Plan: words[0]}, nil }

// planCmd completes a command that sets a plan's terms.
func planCmd(s *shared, cmd *cobra.Command, call adminapi.Call, done string, rename bool) *cobra.Command {
	var args adminapi.PlanArgs
	var expiry expiryFlags
	cmd = command(s, cmd, call, func(words []string) (_ any, err error) {
		args.Plan = words[0]
		args.Expiry, err = expiry.expiry()
		return args, err
	}, func(w io.Writer, p corestore.Plan) { line(w, done, p.ID, p.Name) })
	if rename {
		addOption(cmd.Flags(), &args.Name, "name", "name", "another name", asText)
	}
	addOption(cmd.Flags(), &args.Note, "note", "text", "a note for you", asText)
	addTerms(cmd.Flags(), &args.TermsArgs)
	expiry.add(cmd.Flags())
	return cmd
}

func newPlanAddCmd(s *shared) *cobra.Command {
	return planCmd(s, &cobra.Command{
		Use: "add NAME", Short: "Add a plan", Example: "  node-core plan add basic --limit 50GiB --period month --expires 30d --from-first-use", Args: cobra.ExactArgs(1),
	}, adminapi.PlanAdd, "added", false)
}

func newPlanEditCmd(s *shared) *cobra.Command {
	return planCmd(s, &cobra.Command{
		Use: "edit NAME|ID", Short: "Change a plan; subscriptions that were added with it keep their terms", Example: "  node-core plan edit basic --limit 100GiB", Args: cobra.ExactArgs(1),
	}, adminapi.PlanEdit, "edited", true)
}

func newPlanListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the plans", Example: "  node-core plan list", Args: cobra.NoArgs},
		adminapi.PlanList, noArgs, func(w io.Writer, plans []corestore.Plan) {
			line(w, "ID", "NAME", "GROUP", "LIMIT", "PERIOD", "EXPIRES", "IPS", "CONNECTIONS", "UP", "DOWN")
			for _, p := range plans {
				line(w, p.ID, p.Name, p.GroupID, bytesText(p.LimitBytes), p.Period, lifeText(p.ExpiresAfterSeconds), p.LimitIPs, p.LimitConnections, rateText(p.RateUpBitsPerSecond), rateText(p.RateDownBitsPerSecond))
			}
		})
}

func newPlanShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a plan", Example: "  node-core plan show basic", Args: cobra.ExactArgs(1)},
		adminapi.PlanShow, planArgs, func(w io.Writer, p corestore.Plan) {
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
		adminapi.PlanRemove, planArgs, showRemoved), false, func(words []string) string { return "Remove plan " + words[0] + "?" })
}
