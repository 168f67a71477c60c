package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newGroupCmd(s *shared) *cobra.Command {
	return group("group", "Groups: which subscriptions are on which protocols of which nodes", "  node-core group add family --node fra1 --protocol ams1/vless-1\n  node-core subscription add --user alice --group family",
		unawaited(newGroupAddCmd(s)), newGroupListCmd(s), newGroupShowCmd(s), newGroupEditCmd(s), unawaited(newGroupRemoveCmd(s)))
}

func newGroupAddCmd(s *shared) *cobra.Command {
	var group coreapi.NewGroup
	cmd := command(s, &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a group; it reaches the nodes and protocols that are named, and nothing without any",
		Example: "  node-core group add family --node fra1 --protocol ams1/vless-1\n  node-core group add guests --everything",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.GroupDetails, error) {
		group.Name = words[0]
		return c.AddGroup(ctx, group)
	}, showGroup)
	addGroupFlags(cmd, &group.GroupReach)
	return cmd
}

func addGroupFlags(cmd *cobra.Command, reach *coreapi.GroupReach) {
	flags := cmd.Flags()
	addOption(flags, &reach.Note, "note", "text", "a note for you", asText)
	addOption(flags, &reach.Everything, "everything", "bool", "reach all protocols of all nodes, also later ones", parseBool)
	flags.Lookup("everything").NoOptDefVal = "true"
	flags.StringArrayVar(&reach.AddNodes, "node", nil, "reach all protocols of this node, also later ones: name or id; may be repeated")
	flags.StringArrayVar(&reach.AddProtocols, "protocol", nil, "reach this protocol: id or NODE/TAG; may be repeated")
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "1":
		return true, nil
	case "false", "no", "0":
		return false, nil
	}
	return false, errors.New("want true or false")
}

func newGroupEditCmd(s *shared) *cobra.Command {
	var edit coreapi.GroupEdit
	cmd := changing(s, &cobra.Command{
		Use:     "edit NAME|ID",
		Short:   "Change a group's name, note and what it reaches; only the nodes concerned get another revision",
		Example: "  node-core group edit family --node ams1 --remove-node fra1\n  node-core group edit default --everything=false --node fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.GroupDetails, coreapi.Change, error) {
		return c.EditGroup(ctx, words[0], edit)
	}, showGroup)
	addOption(cmd.Flags(), &edit.Name, "name", "name", "another name", asText)
	addGroupFlags(cmd, &edit.GroupReach)
	cmd.Flags().StringArrayVar(&edit.RemoveNodes, "remove-node", nil, "no longer reach this node; may be repeated")
	cmd.Flags().StringArrayVar(&edit.RemoveProtocols, "remove-protocol", nil, "no longer reach this protocol; may be repeated")
	return cmd
}

func newGroupListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the groups", Example: "  node-core group list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Group, error) {
			return c.Groups(ctx)
		}, func(w io.Writer, groups []coreapi.Group) {
			line(w, "ID", "NAME", "EVERYTHING", "NODES", "PROTOCOLS", "SUBSCRIPTIONS")
			for _, g := range groups {
				line(w, g.ID, g.Name, g.Everything, len(g.Nodes), len(g.Protocols), g.Subscriptions)
			}
		})
}

func newGroupShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a group and what it reaches", Example: "  node-core group show family", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.GroupDetails, error) {
			return c.Group(ctx, words[0])
		}, showGroup)
}

func showGroup(w io.Writer, g coreapi.GroupDetails) {
	line(w, "group", g.ID, g.Name)
	if g.Note != "" {
		line(w, "note", g.Note)
	}
	line(w, "subscriptions", g.Subscriptions)
	switch {
	case g.Everything:
		line(w, "reaches", "all protocols of all nodes")
	case len(g.NodeNames)+len(g.ProtocolNames) == 0:
		line(w, "reaches", "nothing")
	}
	for _, name := range g.NodeNames {
		line(w, "node", name)
	}
	for _, name := range g.ProtocolNames {
		line(w, "protocol", name)
	}
}

func newGroupRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME|ID", Short: "Remove a group that no subscription and no plan is in", Example: "  node-core group remove family", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemoveGroup(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove group " + words[0] + "?" })
}
