package main

import (
	"io"

	"github.com/spf13/cobra"

	"nodeagent/cmd/node-core/internal/adminapi"
	"nodeagent/cmd/node-core/internal/corestore"
)

func newUserCmd(s *shared) *cobra.Command {
	add := command(s, &cobra.Command{Use: "add NAME", Short: "Add a user", Example: "  node-core user add alice", Args: cobra.ExactArgs(1)},
		adminapi.UserAdd, func(words []string) (any, error) { return adminapi.UserArgs{User: words[0]}, nil },
		func(w io.Writer, u corestore.User) { line(w, "added", u.ID, u.Name) })
	list := command(s, &cobra.Command{Use: "list", Short: "List the users", Example: "  node-core user list", Args: cobra.NoArgs},
		adminapi.UserList, noArgs, func(w io.Writer, users []corestore.User) {
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
	}, adminapi.UserRemove, func(words []string) (any, error) { return adminapi.UserArgs{User: words[0]}, nil }, showRemoved)
	return group("user", "Users: the people who connect", "  node-core user add alice\n  node-core user list", add, list, remove)
}
