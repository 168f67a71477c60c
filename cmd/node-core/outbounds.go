package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newOutboundCmd(s *shared) *cobra.Command {
	return group("outbound", "Outbounds: the ways out of a node", "  node-core outbound list --node fra1",
		newOutboundAddCmd(s), newOutboundListCmd(s), newOutboundRemoveCmd(s))
}

// configured tells apart an outbound that the node has, and one of which only its
// traffic is left.
func configured(o corestore.Outbound) string {
	if o.Configured {
		return "configured"
	}
	return "removed"
}

func newOutboundAddCmd(s *shared) *cobra.Command {
	var args adminapi.OutboundArgs
	var file string
	cmd := changing(s, &cobra.Command{
		Use:     "add",
		Short:   "Add an outbound to a node, or replace the one with the same tag",
		Example: "  node-core outbound add --node fra1 --outbound proxy.json",
		Args:    cobra.NoArgs,
	}, adminapi.OutboundAdd, func([]string) (_ any, err error) {
		if file == "" {
			return nil, errors.New("give the native Xray outbound with --outbound FILE")
		}
		args.Config, err = readObject(file)
		return args, err
	}, func(w io.Writer, o adminapi.OutboundAdded) { line(w, "added", o.ID, o.Tag) })
	cmd.Flags().StringVar(&args.Node, "node", "", "name or id of the node")
	cmd.Flags().StringVar(&args.Tag, "tag", "", "tag of the outbound (default the one in the file)")
	cmd.Flags().StringVar(&file, "outbound", "", "file with the native Xray outbound, JSON")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}

func newOutboundListCmd(s *shared) *cobra.Command {
	var args adminapi.NodeArgs
	cmd := command(s, &cobra.Command{
		Use:     "list",
		Short:   "List the outbounds with their traffic in bytes",
		Example: "  node-core outbound list\n  node-core outbound list --node fra1 --output json",
		Args:    cobra.NoArgs,
	}, adminapi.OutboundList, func([]string) (any, error) { return args, nil }, func(w io.Writer, all []corestore.Outbound) {
		line(w, "ID", "NODE", "TAG", "", "UP", "DOWN")
		for _, o := range all {
			line(w, o.ID, o.NodeID, o.Tag, configured(o), o.TrafficBytesUp, o.TrafficBytesDown)
		}
	})
	cmd.Flags().StringVar(&args.Node, "node", "", "name or id of a node (default all)")
	return cmd
}

func newOutboundRemoveCmd(s *shared) *cobra.Command {
	var args adminapi.OutboundArgs
	cmd := changing(s, &cobra.Command{
		Use:     "remove TAG",
		Short:   "Take an outbound out of a node's configuration; its traffic is kept",
		Example: "  node-core outbound remove proxy --node fra1",
		Args:    cobra.ExactArgs(1),
	}, adminapi.OutboundRemove, func(words []string) (any, error) {
		args.Tag = words[0]
		return args, nil
	}, showRemoved)
	cmd.Flags().StringVar(&args.Node, "node", "", "name or id of the node")
	_ = cmd.MarkFlagRequired("node")
	return cmd
}
