package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newOnlineCmd(s *shared) *cobra.Command {
	var node, user string
	var limit int
	cmd := command(s, &cobra.Command{
		Use:     "online",
		Short:   "Show who is online, from where and since when",
		Example: "  node-core online\n  node-core online --node fra1 --output json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Session, error) {
		query, err := limited(limit)
		if err != nil {
			return nil, err
		}
		setText(query, "node", node)
		setText(query, "user", user)
		return c.Online(ctx, query)
	}, func(w io.Writer, sessions []coreapi.Session) {
		line(w, "USER", "NODE", "PROTOCOL", "ADDRESS", "SINCE", "")
		for _, o := range sessions {
			name, doubt := o.User, ""
			if name == "" {
				name = text(o.UserID)
			}
			if o.NodeStatus == "offline" {
				doubt = "the node is not heard of"
			}
			line(w, name, o.Node, o.Protocol, o.IPAddress, o.Since, doubt)
		}
	})
	cmd.Flags().StringVar(&node, "node", "", "only on the node with this name or id")
	cmd.Flags().StringVar(&user, "user", "", "only the user with this name or id")
	addLimit(cmd, &limit)
	return cmd
}
