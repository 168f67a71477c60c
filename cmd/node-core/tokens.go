package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newTokenCmd(s *shared) *cobra.Command {
	return group("token", "Tokens: who may use the admin API over the network", "  node-core token add billing --role support --expires 90d\n  node-core token list",
		newTokenAddCmd(s), newTokenListCmd(s), newTokenRemoveCmd(s))
}

func newTokenAddCmd(s *shared) *cobra.Command {
	var token coreapi.NewToken
	var role string
	cmd := command(s, &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a token and print it; it is shown only this time",
		Example: "  node-core token add billing --role support --expires 90d\n  node-core token add grafana --role read-only",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.TokenAdded, error) {
		token.Name, token.Role = words[0], coreapi.Role(role)
		return c.AddToken(ctx, token)
	}, func(w io.Writer, t coreapi.TokenAdded) {
		line(w, "token", t.ID, t.Name, t.Role)
		line(w, "expires", text(t.ExpiresAt))
		line(w, "secret", t.Secret)
		if t.Pin != "" {
			line(w, "pin of the certificate", t.Pin)
		}
	})
	var names []string
	for _, r := range coreapi.Roles() {
		names = append(names, string(r))
	}
	cmd.Flags().StringVar(&role, "role", "", "what the token may do: "+strings.Join(names, ", "))
	addOption(cmd.Flags(), &token.Expiry, "expires", "time", "a day (its beginning, UTC) such as 2027-01-31, a time such as 2027-01-31T18:00:00Z, a while such as 30d, or never (default never)", parseExpiry)
	_ = cmd.MarkFlagRequired("role")
	return cmd
}

func newTokenListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the tokens, without their secrets", Example: "  node-core token list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Token, error) {
			return c.Tokens(ctx)
		},
		func(w io.Writer, tokens []coreapi.Token) {
			line(w, "ID", "NAME", "ROLE", "SINCE", "BY", "EXPIRES", "LAST USED")
			for _, t := range tokens {
				line(w, t.ID, t.Name, t.Role, t.CreatedAt, t.CreatedBy, t.ExpiresAt, t.LastUsedAt)
			}
		})
}

func newTokenRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME|ID", Short: "Remove a token: no later request with it is answered", Example: "  node-core token remove billing", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemoveToken(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove token " + words[0] + "?" })
}
