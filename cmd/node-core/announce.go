package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
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
	}, adminapi.Announce, func(words []string) (any, error) {
		if len(words) == 1 == none {
			return nil, errors.New("give either the address or --none")
		}
		if none {
			return adminapi.AnnounceArgs{}, nil
		}
		return adminapi.AnnounceArgs{URL: words[0]}, nil
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
