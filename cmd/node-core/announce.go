package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

func newAnnounceCmd(s *shared) *cobra.Command {
	var none bool
	cmd := command(s, &cobra.Command{
		Use:   "announce [URL]",
		Short: "Tell nodes a new address of this Core, before it moves",
		Long: "Tell nodes a new address of this Core, before it moves. A node that does not reach Core at its own\n" +
			"address tries the announced one too. It keeps that address where this Core answers there, which it\n" +
			"knows by Core's id. The certificate has to be the same one, or of an authority that the node trusts.",
		Example: "  node-core announce https://core2.example:8443\n  node-core announce --none",
		Args:    cobra.MaximumNArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (core wire.CoreIdentity, err error) {
		if len(words) == 1 == none {
			return core, errors.New("give either the address or --none")
		}
		if none {
			return c.Announce(ctx, "")
		}
		return c.Announce(ctx, words[0])
	}, func(w io.Writer, c wire.CoreIdentity) {
		if c.NextURL == "" {
			line(w, "nodes are told of no other address")
			return
		}
		line(w, "nodes are told to try", c.NextURL)
	})
	cmd.Flags().BoolVar(&none, "none", false, "tell of no other address any more")
	return cmd
}
