package main

import (
	"context"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newNodeEditCmd(s *shared) *cobra.Command {
	var args coreapi.NodeEdit
	cmd := changing(s, &cobra.Command{
		Use:     "edit NAME|ID",
		Short:   "Change a node's name, region, address in links, tags and budget, or disable it",
		Example: "  node-core node edit fra1 --budget 2TiB --budget-day 1 --multiplier 1.5 --tag fast\n  node-core node edit fra1 --enabled=false --wait",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Node, coreapi.Change, error) {
		return c.EditNode(ctx, words[0], args)
	}, func(w io.Writer, n coreapi.Node) { line(w, "edited node", n.ID, n.Name) })
	flags := cmd.Flags()
	addOption(flags, &args.Name, "name", "name", "another name; it stands in links", asText)
	addOption(flags, &args.Region, "region", "text", "free text, shown in lists", asText)
	addOption(flags, &args.Note, "note", "text", "a note for you", asText)
	addOption(flags, &args.Address, "address", "host", "host name or IP address in links; empty for what the node told", asText)
	addOption(flags, &args.Enabled, "enabled", "bool", "false: the node serves nobody, and links leave it out", parseBool)
	flags.Lookup("enabled").NoOptDefVal = "true"
	addOption(flags, &args.Routing, "routing", "profile", "name or id of the routing profile; empty for none", asText)
	addOption(flags, &args.Multiplier, "multiplier", "number", "how much a byte counts towards limits, such as 1.5", parseMultiplier)
	addOption(flags, &args.BudgetBytes, "budget", "bytes", "what the hosting provider allows a month, such as 2TiB; none for no bound", parseBytes)
	addOption(flags, &args.BudgetDay, "budget-day", "day", "day of the month on which the budget begins anew, 1 to 31", parseCount)
	addOption(flags, &args.BudgetWarnPercent, "budget-warn", "percent", "share of the budget at which Core warns, 1 to 100; 0 for never", parseCount)
	addOption(flags, &args.BudgetAction, "budget-action", "action", "at the end of the budget: warn or stop", asText)
	flags.StringArrayVar(&args.AddTags, "tag", nil, "add this tag; may be repeated")
	flags.StringArrayVar(&args.RemoveTags, "remove-tag", nil, "take this tag away; may be repeated")
	return cmd
}

func newNodeMaintenanceCmd(s *shared) *cobra.Command {
	return changing(s, &cobra.Command{
		Use:     "maintenance NAME|ID on|off",
		Short:   "Let a node serve nobody, and links leave it out, while you work on it; or let it serve again",
		Example: "  node-core node maintenance fra1 on --wait\n  node-core node maintenance fra1 off",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Node, coreapi.Change, error) {
		on, known := map[string]bool{"on": true, "off": false}[words[1]]
		if !known {
			return coreapi.Node{}, coreapi.Change{}, fmt.Errorf("%q says nothing of maintenance: want on or off", words[1])
		}
		return c.EditNode(ctx, words[0], coreapi.NodeEdit{Maintenance: &on})
	}, func(w io.Writer, n coreapi.Node) {
		if n.Maintenance {
			line(w, "maintenance on", n.ID, n.Name)
		} else {
			line(w, "maintenance off", n.ID, n.Name)
		}
	})
}

// parseMultiplier reads a number into thousandths.
func parseMultiplier(text string) (int64, error) {
	value, ok := new(big.Rat).SetString(text)
	if !ok || len(text) > 20 || strings.ContainsAny(text, "eE/") || value.Sign() < 0 {
		return 0, fmt.Errorf("%q is no number such as 1.5", text)
	}
	value.Mul(value, big.NewRat(1000, 1))
	if !value.IsInt() || !value.Num().IsInt64() {
		return 0, fmt.Errorf("%q has more than three digits behind the point, or is too much", text)
	}
	return value.Num().Int64(), nil
}

// showNodeTerms prints what an operator said of a node: nothing where that is nothing.
func showNodeTerms(w io.Writer, t coreapi.Node) {
	if !t.Enabled {
		line(w, "disabled", "it serves nobody, and links leave it out")
	}
	if t.Maintenance {
		line(w, "maintenance", "it serves nobody, and links leave it out")
	}
	for _, row := range [][2]string{{"note", t.Note}, {"address in links", t.Address}, {"tags", strings.Join(t.Tags, ", ")}} {
		if row[1] != "" {
			line(w, row[0], row[1])
		}
	}
	if t.Multiplier != 1000 {
		line(w, "multiplier", strconv.FormatFloat(float64(t.Multiplier)/1000, 'f', -1, 64))
	}
	if t.BudgetBytes > 0 {
		line(w, "budget", fmt.Sprintf("%s a month from day %d, then %s", bytesText(t.BudgetBytes), t.BudgetDay, t.BudgetAction))
		used := bytesText(t.BudgetUsedBytes)
		if t.OverBudget {
			used += ", which is all of it"
			if !t.Serves() {
				used += ": it serves nobody, and links leave it out"
			}
		}
		line(w, "used of it", used)
	}
}
