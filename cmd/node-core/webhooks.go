package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newWebhookCmd(s *shared) *cobra.Command {
	return group("webhook", "Webhooks: servers of yours that Core sends events to", "  node-core webhook add https://shop.example/events --event subscription.expiring --secret-file FILE\n  node-core webhook list",
		newWebhookAddCmd(s), newWebhookListCmd(s), newWebhookRemoveCmd(s), newWebhookTestCmd(s))
}

func newWebhookAddCmd(s *shared) *cobra.Command {
	var kinds []string
	var file string
	cmd := command(s, &cobra.Command{
		Use:   "add URL",
		Short: "Send the events that happen from now on to a server",
		Long: "Send the events that happen from now on to a server, each as a POST with a signature. The secret is\n" +
			"whsec_ and 24 to 64 bytes in base64, as in: echo whsec_$(openssl rand -base64 32). docs/api.md says how\n" +
			"the server checks the signature.",
		Example: "  node-core webhook add https://shop.example/events --secret-file FILE\n  node-core webhook add https://bot.example/hook --event node.offline,node.online --secret-file FILE",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (w coreapi.Webhook, err error) {
		text, err := s.readSecret("secret", file)
		if err != nil {
			return w, err
		}
		add := coreapi.NewWebhook{URL: words[0], Secret: text.Reveal()}
		for _, k := range kinds {
			add.Kinds = append(add.Kinds, coreapi.EventKind(k))
		}
		return c.AddWebhook(ctx, add)
	}, func(w io.Writer, hook coreapi.Webhook) { line(w, "webhook", hook.ID, hook.URL) })
	cmd.Flags().StringSliceVar(&kinds, "event", nil, "kinds of events to send, divided by commas (default all)")
	cmd.Flags().StringVar(&file, "secret-file", "", "file with the secret of the signature")
	_ = cmd.MarkFlagRequired("secret-file")
	return cmd
}

func newWebhookListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the webhooks, with what waits for them and their last error", Example: "  node-core webhook list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.Webhook, error) {
			return c.Webhooks(ctx)
		},
		func(w io.Writer, hooks []coreapi.Webhook) {
			line(w, "ID", "URL", "EVENTS", "STATE", "WAITING", "GIVEN UP", "DELIVERED", "NEXT TRY", "LAST ERROR")
			for _, h := range hooks {
				kinds := "all"
				if len(h.Kinds) > 0 {
					kinds = strings.Trim(fmt.Sprint(h.Kinds), "[]")
				}
				next, last := "-", "-"
				if h.NextAt != nil && h.State != "ok" {
					next = text(h.NextAt)
				}
				if h.LastErrorAt != nil {
					last = text(h.LastErrorAt) + " " + h.LastError
				}
				waiting := strconv.FormatInt(h.Waiting, 10)
				if h.WaitingMore {
					waiting += " or more"
				}
				line(w, h.ID, h.URL, kinds, h.State, waiting, h.GivenUp, h.DeliveredAt, next, last)
			}
		})
}

// webhookID reads an id.
func webhookID(word string) (int64, error) {
	id, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no id of a webhook: 'node-core webhook list' has them", word)
	}
	return id, nil
}

func newWebhookRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove ID", Short: "Send nothing more to a webhook", Example: "  node-core webhook remove 1843209600000", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (r coreapi.Removed, err error) {
			id, err := webhookID(words[0])
			if err != nil {
				return r, err
			}
			return c.RemoveWebhook(ctx, id)
		}, showRemoved), false, func(words []string) string {
		return "Remove webhook " + words[0] + "? Events that wait for it are not sent."
	})
}

func newWebhookTestCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{
		Use: "test ID", Short: "Send a test to a webhook, and say what came of it",
		Long:    "Send a test to a webhook, and say what came of it. After a success, events that wait for another try\nare sent at once.",
		Example: "  node-core webhook test 1843209600000", Args: cobra.ExactArgs(1),
	},
		func(ctx context.Context, c *coreapi.Client, words []string) (t coreapi.WebhookTested, err error) {
			id, err := webhookID(words[0])
			if err != nil {
				return t, err
			}
			if t, err = c.TestWebhook(ctx, id); err == nil && !t.OK {
				err = fmt.Errorf("the test did not arrive: %s", t.Error)
			}
			return t, err
		},
		func(w io.Writer, t coreapi.WebhookTested) {
			line(w, "the test arrived", fmt.Sprintf("after %.2f s", t.Duration))
		})
}
