package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newOutboundCmd(s *shared) *cobra.Command {
	return group("outbound", "Outbounds: the ways out of a node", "  node-core outbound list --node fra1",
		newOutboundAddCmd(s), newOutboundListCmd(s), newOutboundShowCmd(s), newOutboundEditCmd(s), newOutboundRemoveCmd(s))
}

// configured tells apart an outbound that the node has, one that is disabled, and one of which only
// its traffic is left.
func configured(o coreapi.Outbound) string {
	switch {
	case o.Disabled:
		return "disabled"
	case o.Configured:
		return "configured"
	}
	return "removed"
}

func newOutboundAddCmd(s *shared) *cobra.Command {
	var o coreapi.NewOutbound
	var file string
	cmd := changing(s, &cobra.Command{
		Use:     "add",
		Short:   "Add an outbound to a node, or replace the one with the same tag",
		Example: "  node-core outbound add --node fra1 --outbound proxy.json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) (added coreapi.OutboundAdded, change coreapi.Change, err error) {
		if file == "" {
			return added, change, errors.New("give the native Xray outbound with --outbound FILE")
		}
		if o.Config, err = readObject(file); err != nil {
			return added, change, err
		}
		return c.PutOutbound(ctx, o)
	}, func(w io.Writer, o coreapi.OutboundAdded) { line(w, "added", o.ID, o.Tag) })
	cmd.Flags().StringVar(&o.Node, "node", "", "name or id of the node")
	cmd.Flags().StringVar(&o.Tag, "tag", "", "tag of the outbound (default the one in the file)")
	cmd.Flags().StringVar(&file, "outbound", "", "file with the native Xray outbound, JSON")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

func newOutboundListCmd(s *shared) *cobra.Command {
	var node string
	cmd := command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the outbounds with their traffic in bytes",
		Example: "  node-core outbound list\n  node-core outbound list --node fra1 --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Outbound, error) {
		return coreapi.Collect(c.Outbounds(ctx, ofNode(node)))
	}, func(w io.Writer, all []coreapi.Outbound) {
		line(w, "ID", "NODE", "TAG", "", "UP", "DOWN")
		for _, o := range all {
			line(w, o.ID, o.NodeID, o.Tag, configured(o), o.TrafficBytesUp, o.TrafficBytesDown)
		}
	})
	cmd.Flags().StringVar(&node, "node", "", "name or id of a node (default all)")
	return cmd
}

func newOutboundShowCmd(s *shared) *cobra.Command {
	var node string
	cmd := command(s, &cobra.Command{Use: "show TAG", Short: "Show an outbound with its traffic in bytes", Example: "  node-core outbound show direct --node fra1", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Outbound, error) {
			return c.Outbound(ctx, node, words[0])
		}, func(w io.Writer, o coreapi.Outbound) {
			line(w, "outbound", o.ID, o.Tag, configured(o))
			if o.Protocol != "" {
				line(w, "protocol", o.Protocol)
			}
			line(w, "bytes", "up", o.TrafficBytesUp, "down", o.TrafficBytesDown)
		})
	cmd.Flags().StringVar(&node, "node", "", "name or id of the node")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

func newOutboundEditCmd(s *shared) *cobra.Command {
	var node, file string
	var args coreapi.OutboundEdit
	cmd := changing(s, &cobra.Command{
		Use:     "edit TAG",
		Short:   "Change the object or the tag of an outbound, or disable it; its traffic is kept",
		Example: "  node-core outbound edit proxy --node fra1 --outbound proxy.json\n  node-core outbound edit proxy --node fra1 --enabled=false",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (edited coreapi.OutboundAdded, change coreapi.Change, err error) {
		if file != "" {
			if args.Config, err = readObject(file); err != nil {
				return edited, change, err
			}
		}
		return c.EditOutbound(ctx, node, words[0], args)
	}, func(w io.Writer, o coreapi.OutboundAdded) { line(w, "edited", o.ID, o.Tag) })
	flags := cmd.Flags()
	flags.StringVar(&node, "node", "", "name or id of the node")
	flags.StringVar(&file, "outbound", "", "file with the native Xray outbound, JSON")
	addOption(flags, &args.Tag, "tag", "tag", "another tag; routing rules that name the old one have to be changed too", asText)
	addOption(flags, &args.Enabled, "enabled", "bool", "false: the node's configuration leaves the outbound out", parseBool)
	flags.Lookup("enabled").NoOptDefVal = "true"
	_ = cmd.MarkFlagRequired("node")
	cmd.MarkFlagsOneRequired("outbound", "tag", "enabled")
	return cmd
}

func newOutboundRemoveCmd(s *shared) *cobra.Command {
	var node string
	cmd := changing(s, &cobra.Command{
		Use:     "remove TAG",
		Short:   "Take an outbound out of a node's configuration; its traffic is kept",
		Example: "  node-core outbound remove proxy --node fra1",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
		return c.RemoveOutbound(ctx, node, words[0])
	}, showRemoved)
	cmd.Flags().StringVar(&node, "node", "", "name or id of the node")
	_ = cmd.MarkFlagRequired("node")
	return asking(s, cmd, false, func(words []string) string { return "Remove outbound " + words[0] + "?" })
}
