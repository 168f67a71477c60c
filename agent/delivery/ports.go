package delivery

import (
	"context"
	"log/slog"
	"time"

	"nodeagent/store"
)

// Core takes the batches; coreclient.Client is one.
type Core interface {
	// Post sends a body, which is JSON, to the path under the Idempotency-Key. The class of
	// its error (coreclient.ClassOf) says what to do with the batch.
	Post(ctx context.Context, path, key string, body []byte) error
}

// Outbox has the batches that Core has not acknowledged; store.Store is one.
type Outbox interface {
	Next(kind store.Kind) (store.Batch, bool, error)
	NextSince(kind store.Kind, since time.Time) (store.Batch, bool, error)
	Done(batch store.Batch) error
	Split(batch store.Batch) error
	SetAside(now time.Time, batch store.Batch, reason string) error
}

// Reports is the part of the outbox that takes reports; store.Store is one.
type Reports interface {
	Report(now time.Time, path string, body any) error
}

// Deps is what a Courier works with. All of it is required.
type Deps struct {
	Log    *slog.Logger
	Core   Core
	Outbox Outbox
	Link   *Link
	// Jitter varies a wait, so that not all nodes ask Core at the same time.
	Jitter func(time.Duration) time.Duration
	// Refused is called with each batch that was set aside, and why. It is not called for
	// reports.
	Refused func(batch store.Batch, reason error)
}
