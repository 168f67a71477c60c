package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newUserCmd(s *shared) *cobra.Command {
	return group("user", "Users: the people who connect", "  node-core user add alice\n  node-core user list",
		unawaited(newUserAddCmd(s)), newUserListCmd(s), newUserShowCmd(s), newUserEditCmd(s), newUserEnableCmd(s, true), newUserEnableCmd(s, false), newUserRemoveCmd(s), newUserEraseCmd(s))
}

func newUserAddCmd(s *shared) *cobra.Command {
	var user coreapi.NewUser
	var contacts []string
	cmd := command(s, &cobra.Command{Use: "add NAME", Short: "Add a user", Example: "  node-core user add alice\n  node-core user add bob --note 'pays in May' --contact telegram=@bob", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (added coreapi.User, err error) {
			user.Name = words[0]
			if user.Contact, err = parseContacts(contacts); err != nil {
				return added, err
			}
			return c.AddUser(ctx, user)
		}, func(w io.Writer, u coreapi.User) { line(w, "added", u.ID, u.Name) })
	addUserFlags(cmd, &user.Note, &contacts)
	return cmd
}

func addUserFlags(cmd *cobra.Command, note **string, contacts *[]string) {
	addOption(cmd.Flags(), note, "note", "text", "a note for you", asText)
	cmd.Flags().StringArrayVar(contacts, "contact", nil, "KIND=VALUE, such as email=a@example.com; KIND= takes it away; may be repeated")
}

func parseContacts(words []string) (map[string]string, error) {
	contacts := map[string]string{}
	for _, word := range words {
		kind, value, ok := strings.Cut(word, "=")
		if !ok || kind == "" {
			return nil, fmt.Errorf("--contact %q: want KIND=VALUE, such as telegram=@alice", word)
		}
		contacts[kind] = value
	}
	return contacts, nil
}

func newUserListCmd(s *shared) *cobra.Command {
	var search, sort string
	var disabled bool
	cmd := command(s, &cobra.Command{Use: "list", Short: "List the users", Example: "  node-core user list\n  node-core user list --search ali", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.User, error) {
			query := wholeList()
			setText(query, "search", search)
			setText(query, "sort", sort)
			if disabled {
				query.Set("disabled", "true")
			}
			return coreapi.Collect(c.Users(ctx, query))
		}, func(w io.Writer, users []coreapi.User) {
			line(w, "ID", "NAME", "SINCE", "STATE")
			for _, u := range users {
				state := "enabled"
				if !u.Enabled {
					state = "disabled"
				}
				line(w, u.ID, u.Name, u.CreatedAt, state)
			}
		})
	cmd.Flags().StringVar(&search, "search", "", "only users whose name, note or contacts have this text")
	cmd.Flags().BoolVar(&disabled, "disabled", false, "only users who are disabled")
	cmd.Flags().StringVar(&sort, "sort", "", "the order: id or name, or one of them with a - before it (default id)")
	return cmd
}

func newUserShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME|ID", Short: "Show a user with the subscriptions", Example: "  node-core user show alice", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.UserDetails, error) {
			return c.User(ctx, words[0])
		}, func(w io.Writer, u coreapi.UserDetails) {
			line(w, "user", u.ID, u.Name)
			line(w, "since", u.CreatedAt)
			if !u.Enabled {
				line(w, "status", "disabled: no subscription is let in")
			}
			if u.Note != "" {
				line(w, "note", u.Note)
			}
			for _, kind := range slices.Sorted(maps.Keys(u.Contact)) {
				line(w, kind, u.Contact[kind])
			}
			for _, sub := range u.Subscriptions {
				line(w, "subscription", sub.ID, sub.Status, "up", sub.BytesUp, "down", sub.BytesDown)
			}
		})
}

func newUserEditCmd(s *shared) *cobra.Command {
	var edit coreapi.UserEdit
	var contacts []string
	cmd := changing(s, &cobra.Command{Use: "edit NAME|ID", Short: "Change a user's name, note and contacts", Example: "  node-core user edit alice --name alice-b --contact email=", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (user coreapi.User, change coreapi.Change, err error) {
			if edit.Contact, err = parseContacts(contacts); err != nil {
				return user, change, err
			}
			return c.EditUser(ctx, words[0], edit)
		}, func(w io.Writer, u coreapi.User) { line(w, "edited", u.ID, u.Name) })
	addOption(cmd.Flags(), &edit.Name, "name", "name", "another name", asText)
	addUserFlags(cmd, &edit.Note, &contacts)
	return cmd
}

func newUserEnableCmd(s *shared, enable bool) *cobra.Command {
	cmd := &cobra.Command{Use: "enable NAME|ID", Short: "Let a disabled user in again, with the subscriptions that are enabled", Example: "  node-core user enable alice", Args: cobra.ExactArgs(1)}
	done := "enabled"
	if !enable {
		cmd = &cobra.Command{Use: "disable NAME|ID", Short: "Cut a user off on every node, with all subscriptions", Example: "  node-core user disable alice", Args: cobra.ExactArgs(1)}
		done = "disabled"
	}
	return changing(s, cmd, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.User, coreapi.Change, error) {
		return c.EditUser(ctx, words[0], coreapi.UserEdit{Enabled: &enable})
	}, func(w io.Writer, u coreapi.User) { line(w, done, u.ID, u.Name) })
}

func newUserRemoveCmd(s *shared) *cobra.Command {
	return asking(s, changing(s, &cobra.Command{
		Use:     "remove NAME|ID",
		Short:   "Remove a user and the user's subscriptions; the usage rows are kept",
		Example: "  node-core user remove alice",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, coreapi.Change, error) {
		return c.RemoveUser(ctx, words[0])
	}, showRemoved), false, func(words []string) string {
		return "Remove user " + words[0] + " with all subscriptions?"
	})
}

func newUserEraseCmd(s *shared) *cobra.Command {
	return asking(s, changing(s, &cobra.Command{
		Use:   "erase NAME|ID",
		Short: "Remove a user and everything that names the user; the sums of nodes and inbounds are kept",
		Long: "Remove a user, who may be removed already, and everything that names the user: contacts, notes,\n" +
			"credentials, and the session events with their addresses. The usage rows become rows of nobody\n" +
			"(user 0), so that the sums of nodes and inbounds stay. Backups of before still have it all.",
		Example: "  node-core user erase alice --yes",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Erased, coreapi.Change, error) {
		return c.EraseUser(ctx, words[0])
	}, func(w io.Writer, e coreapi.Erased) {
		line(w, "erased", e.User)
		line(w, "usage rows without a name", e.Rows)
		line(w, "session events deleted", e.Events)
	}), true, func(words []string) string {
		return "Erase user " + words[0] + "? That can't be undone"
	})
}
