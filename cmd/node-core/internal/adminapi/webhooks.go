package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/secret"
)

// Webhooks checks and tests webhooks.
type Webhooks interface {
	Check(url string, text secret.Text) (key []byte, err error)
	Test(ctx context.Context, id int64) (coreapi.WebhookTested, error)
}

// noWebhooks is for a server that sends nothing.
type noWebhooks struct{}

var errNoWebhooks = errors.New("this Core sends no webhooks")

func (noWebhooks) Check(string, secret.Text) ([]byte, error) { return nil, errNoWebhooks }

func (noWebhooks) Test(context.Context, int64) (t coreapi.WebhookTested, err error) {
	return t, errNoWebhooks
}

// SendsBy says what sends events to webhooks. It is called before the first request.
func (s *Server) SendsBy(w Webhooks) { s.webhooks = w }

type webhookPath struct {
	Webhook int64 `path:"webhook" doc:"Id of the webhook."`
}

func registerWebhooks(a api) {
	s := a.server
	read(a, operation{id: "webhook-list", method: http.MethodGet, path: "/webhooks", noun: "webhooks", summary: "List the webhooks, without their secrets", role: coreapi.Owner},
		func(ctx context.Context, _ *struct{}) ([]corestore.Webhook, error) { return s.store.Webhooks(ctx) })
	read(a, operation{id: "webhook-add", method: http.MethodPost, path: "/webhooks", noun: "webhooks", summary: "Add a webhook: events are sent to it from now on", role: coreapi.Owner, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewWebhook }) (corestore.Webhook, error) {
			return s.webhookAdd(ctx, in.Body)
		})
	read(a, operation{id: "webhook-remove", method: http.MethodDelete, path: "/webhooks/{webhook}", noun: "webhooks", summary: "Remove a webhook; no later event is sent to it", role: coreapi.Owner},
		func(ctx context.Context, in *webhookPath) (coreapi.Removed, error) {
			w, err := s.store.RemoveWebhook(ctx, in.Webhook)
			s.hub.Happened()
			return coreapi.Removed{Removed: fmt.Sprintf("webhook %d", w.ID)}, err
		})
	read(a, operation{id: "webhook-test", method: http.MethodPost, path: "/webhooks/{webhook}/test", noun: "webhooks", summary: "Send a test to a webhook, and what waits for another try after a success", role: coreapi.Owner},
		func(ctx context.Context, in *webhookPath) (coreapi.WebhookTested, error) {
			return s.webhooks.Test(ctx, in.Webhook)
		})
}

func (s *Server) webhookAdd(ctx context.Context, args coreapi.NewWebhook) (w corestore.Webhook, err error) {
	names := make([]string, len(args.Kinds))
	for i, k := range args.Kinds {
		names[i] = string(k)
	}
	kinds, err := eventKinds(names)
	if err != nil {
		return w, err
	}
	key, err := s.webhooks.Check(args.URL, secret.Text(args.Secret))
	if err != nil {
		return w, badInput{err}
	}
	w, err = s.store.AddWebhook(ctx, args.URL, kinds, key)
	if errors.Is(err, corestore.ErrTooMany) {
		return w, badInput{err}
	}
	s.hub.Happened() // the sender looks again
	return w, err
}
