package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/internal/logkey"
	"nodeagent/internal/secret"
	"nodeagent/internal/wait"
)

const (
	firstWait = 5 * time.Second // after the first failure; it doubles
	mostWait  = 6 * time.Hour
	// patience is how long an event is tried before it is given up.
	patience = 5 * 24 * time.Hour
	// lookEvery is how often the database is asked for webhooks and events that nobody told of: of
	// another instance, or after an error.
	lookEvery = 5 * time.Second
	maxReason = 300 // bytes of an error that are stored
)

// Store is what the sender needs of the database.
type Store interface {
	Lead(ctx context.Context, f func(context.Context), failed func(error))
	WebhookIDs(ctx context.Context) ([]int64, error)
	WebhookKey(ctx context.Context, id int64) (url string, key []byte, err error)
	RetryWebhook(ctx context.Context, id int64) error
	NextDelivery(ctx context.Context, id int64) (corestore.Delivery, error)
	Delivered(ctx context.Context, id, position, event int64) error
	NotDelivered(ctx context.Context, id, position int64, reason string, now, next time.Time, patience time.Duration) (givenUp int64, err error)
}

// Wakes tells of events.
type Wakes interface {
	NextEvent() <-chan struct{}
}

// Sender sends events to webhooks.
type Sender struct {
	store  Store
	wakes  Wakes
	log    *slog.Logger
	client *http.Client
	allow  Allowed

	// The times of above, for tests.
	first, most, patience, look time.Duration
}

// New makes a sender, which sends to the addresses that allow says.
func New(store Store, wakes Wakes, allow Allowed, log *slog.Logger) *Sender {
	return &Sender{store: store, wakes: wakes, log: log, client: newClient(allow.AnyAddress), allow: allow, first: firstWait, most: mostWait, patience: patience, look: lookEvery}
}

// Run sends events until ctx ends, and waits until each try has ended.
func (s *Sender) Run(ctx context.Context) {
	s.store.Lead(ctx, s.send, func(err error) { s.log.Warn("find out which instance sends webhooks; trying again", logkey.Error, err) })
}

// send has a goroutine for each webhook.
func (s *Sender) send(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ends := map[int64]context.CancelFunc{}
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	for ctx.Err() == nil {
		next := s.wakes.NextEvent()
		ids, err := s.store.WebhookIDs(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("read the webhooks; trying again", logkey.Error, err)
		}
		if err == nil {
			there := map[int64]bool{}
			for _, id := range ids {
				there[id] = true
				if ends[id] != nil {
					continue
				}
				serving, end := context.WithCancel(ctx)
				ends[id] = end
				running.Go(func() { s.serve(serving, id) })
			}
			for id, end := range ends {
				if !there[id] {
					end()
					delete(ends, id)
				}
			}
		}
		s.pause(ctx, next, s.look)
	}
}

// pause waits for the next event, for a time, or for the end of ctx.
func (s *Sender) pause(ctx context.Context, next <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-next:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serve sends the events of one webhook, in order, until ctx ends.
func (s *Sender) serve(ctx context.Context, id int64) {
	for ctx.Err() == nil {
		next := s.wakes.NextEvent()
		d, err := s.store.NextDelivery(ctx, id)
		switch {
		case errors.Is(err, corestore.ErrNotFound) || ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("read what a webhook is to get; trying again", logkey.Webhook, id, logkey.Error, err)
			wait.For(ctx, s.look)
		case d.Event == nil:
			s.pause(ctx, next, s.look)
		case time.Until(d.NextAt) > 0:
			// An event does not end this wait. A test of the webhook sets another time.
			wait.For(ctx, min(time.Until(d.NextAt), s.look))
		default:
			if err := s.try(ctx, id, d); err != nil && ctx.Err() == nil {
				s.log.Error("note what became of an event for a webhook; it may be sent once more", logkey.Webhook, id, logkey.Event, d.Event.ID, logkey.Error, err)
				wait.For(ctx, s.look)
			}
		}
	}
}

// try sends an event once, and stores what came of it. A try that was interrupted counts for nothing.
func (s *Sender) try(ctx context.Context, id int64, d corestore.Delivery) error {
	err := s.post(ctx, d.URL, d.Key, eventID(d.Event.ID), *d.Event)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		// Core may be ending: that the event has arrived is noted all the same.
		return s.store.Delivered(context.WithoutCancel(ctx), id, d.Position, d.Event.ID)
	}
	pause := s.waitAfter(d.Attempts + 1)
	if no, is := errors.AsType[refused](err); is {
		pause = max(pause, no.retryAfter)
	}
	now := time.Now()
	givenUp, stored := s.store.NotDelivered(ctx, id, d.Position, printable(err.Error()), now, now.Add(pause), s.patience)
	switch {
	case stored != nil:
		return stored
	case givenUp > 0:
		s.log.Error("a webhook is failing: events are given up", logkey.Webhook, id, logkey.Events, givenUp, logkey.Error, printable(err.Error()))
	case d.Attempts == 0:
		s.log.Warn("an event did not reach a webhook; trying again", logkey.Webhook, id, logkey.Event, d.Event.ID, logkey.Error, printable(err.Error()), logkey.NextIn, pause.Round(time.Second))
	}
	return nil
}

// post sends an event once to an address that is allowed.
func (s *Sender) post(ctx context.Context, url string, key []byte, id string, e coreapi.Event) error {
	if err := CheckURL(url, s.allow); err != nil {
		return err
	}
	return post(ctx, s.client, url, key, id, e, time.Now())
}

// eventID is the same for each try of an event.
func eventID(id int64) string { return fmt.Sprintf("evt_%d", id) }

// waitAfter is how long to wait after a number of failures.
func (s *Sender) waitAfter(failures int64) time.Duration {
	waits := wait.Doubling(s.first, s.most)
	waits.RandomizationFactor = 0.1 // webhooks of one server do not come together
	d := s.first
	for range min(failures, 64) {
		d = waits.NextBackOff()
	}
	return d
}

// Check returns an error for an address or a secret that no webhook can have.
func (s *Sender) Check(url string, text secret.Text) (key []byte, err error) {
	if err := CheckURL(url, s.allow); err != nil {
		return nil, err
	}
	return ParseKey(text)
}

// Test sends an event of the kind EventWebhookTest at once. After a success, the events that wait for
// another try are tried at once too.
func (s *Sender) Test(ctx context.Context, id int64) (coreapi.WebhookTested, error) {
	url, key, err := s.store.WebhookKey(ctx, id)
	if err != nil {
		return coreapi.WebhookTested{}, err
	}
	start := time.Now()
	e := coreapi.Event{At: start.UTC(), Kind: coreapi.EventWebhookTest, Data: []byte("{}")}
	err = s.post(ctx, url, key, fmt.Sprintf("test_%d", start.UnixNano()), e)
	tested := coreapi.WebhookTested{ID: id, OK: err == nil, Duration: time.Since(start).Seconds()}
	if err != nil {
		tested.Error = printable(err.Error())
		return tested, ctx.Err()
	}
	return tested, s.store.RetryWebhook(ctx, id)
}

// printable is an error as it is stored: short, and without characters that a terminal would not show.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}
