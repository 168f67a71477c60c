package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newUserCmd(s *shared) *cobra.Command {
	add := command(s, &cobra.Command{Use: "add NAME", Short: "Add a user", Example: "  node-core user add alice", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.User, error) {
			return c.AddUser(ctx, coreapi.NewUser{Name: words[0]})
		},
		func(w io.Writer, u coreapi.User) { line(w, "added", u.ID, u.Name) })
	list := command(s, &cobra.Command{Use: "list", Short: "List the users", Example: "  node-core user list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.User, error) {
			return coreapi.Collect(c.Users(ctx, wholeList()))
		}, func(w io.Writer, users []coreapi.User) {
			line(w, "ID", "NAME", "SINCE")
			for _, u := range users {
				line(w, u.ID, u.Name, u.CreatedAt)
			}
		})
	remove := changing(s, &cobra.Command{
		Use:     "remove NAME|ID",
		Short:   "Remove a user and the user's subscriptions; the usage rows are kept",
		Example: "  node-core user remove alice",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
		return c.RemoveUser(ctx, words[0])
	}, showRemoved)
	return group("user", "Users: the people who connect", "  node-core user add alice\n  node-core user list", add, list, remove)
}
