package agent

import (
	"context"
	"time"

	"nodeagent/agent/delivery"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// Core is the other side of the contract; coreclient.Client is one.
type Core interface {
	delivery.Core // Post
	Heartbeat(ctx context.Context, r wire.HeartbeatRequest, key string, wait time.Duration) (wire.HeartbeatResponse, error)
	// Config returns the NodeConfig as JSON, or changed false where it is
	// still the one with that ETag.
	Config(ctx context.Context, etag string) (body []byte, newETag string, changed bool, err error)
	Skew() time.Duration
}

// Xray is the Xray engine; xray.Engine is one.
type Xray interface {
	// Apply reaches the state or leaves everything as it was.
	Apply(ctx context.Context, state state.State) error
	// Restore reaches as much of the state as it can.
	Restore(ctx context.Context, state state.State) error
	Run(ctx context.Context) error
	Status() xray.Status
}

// MTProto is the MTProto engine; telemt.Engine is one.
type MTProto interface {
	// Apply reaches the service or leaves everything as it was.
	Apply(ctx context.Context, wanted service.Service) error
	// Restore reaches as much of the service as it can.
	Restore(ctx context.Context, wanted service.Service) error
	// Collect reads the inbounds' counters, until ctx ends.
	Collect(ctx context.Context)
	Run(ctx context.Context) error
	Status() telemt.Status
}

// Counters are the shared byte counters; counters.File is one.
type Counters interface {
	store.Counters
	// Grow makes room for at least that many slots.
	Grow(slots uint32) error
}

// ledger accounts counters for their owners. The ports from here on are parts
// of store.Store.
type ledger interface {
	Assign(owners []store.Owner) ([]uint32, error)
	Owner(slot uint32) (store.Owner, bool)
	Slots() []uint32
	SlotCount() uint32
	Collect(now time.Time, counters store.Counters) error
	Commit(now time.Time, counters store.Counters, history store.History, owners []store.Owner) error
	Accounted(engine string) (up, down uint64)
	Release(now time.Time, counters store.Counters, slots []uint32) error
	Flush(now time.Time, counters store.Counters) error
	History() (store.History, error)
}

// outbox holds what Core has not acknowledged.
type outbox interface {
	delivery.Outbox
	delivery.Reports
	Waiting() (store.Waiting, error)
	Compact(now time.Time) (*store.Trimmed, error)
}

// sessionStore remembers who Core was told is online.
type sessionStore interface {
	Sessions(now time.Time, events []store.SessionEvent) error
	Online() (map[store.SessionKey]wire.SessionEvent, error)
	LastWrite() time.Time
}

// Store is all that the agent keeps; store.Store is one.
type Store interface {
	ledger
	outbox
	sessionStore
}
