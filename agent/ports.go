package agent

import (
	"context"
	"io"
	"time"

	"nodeagent/agent/delivery"
	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/telemt/service"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// Core is the control plane; coreclient.Client is one.
type Core interface {
	delivery.Core // Post
	// Heartbeat says that the node lives and which revision runs. held is the ETag of the
	// document that the node holds, which may run in part; empty for none. key is the
	// Idempotency-Key. Core may hold the answer for up to wait.
	Heartbeat(ctx context.Context, r wire.HeartbeatRequest, held, key string, wait time.Duration) (wire.HeartbeatResponse, error)
	// Config returns the NodeConfig as JSON, and its ETag. changed is false where it is
	// still the one with the given ETag; body is nil then.
	Config(ctx context.Context, etag string) (body []byte, newETag string, changed bool, err error)
	// Update is Config that takes a delta too: see coreclient.Update.
	Update(ctx context.Context, etag string) (coreclient.Update, error)
	// Skew is this host's clock minus Core's, at the last answer.
	Skew() time.Duration
}

// Xray is the Xray engine; xray.Engine is one.
type Xray interface {
	// Apply brings the engine to the state, or leaves everything as it was and returns why.
	Apply(ctx context.Context, state state.State) error
	// Restore brings the engine to as much of the state as it can, and goes on trying to
	// bring up the rest. The error says what is missing.
	Restore(ctx context.Context, state state.State) error
	// Run runs the engine until ctx ends; Apply and Restore wait for it.
	Run(ctx context.Context) error
	Status() xray.Status
}

// MTProto is the MTProto engine; telemt.Engine is one.
type MTProto interface {
	// Apply brings the engine to what is wanted, or leaves everything as it was and
	// returns why.
	Apply(ctx context.Context, wanted service.Service) error
	// Restore brings the engine to as much of what is wanted as it can, and goes on trying
	// to bring up the rest. The error says what is missing.
	Restore(ctx context.Context, wanted service.Service) error
	// Collect adds what telemt counted since the last call to the counters file. It returns
	// when it has, or when ctx ends.
	Collect(ctx context.Context)
	// Run runs the engine until ctx ends; Apply and Restore wait for it.
	Run(ctx context.Context) error
	Status() telemt.Status
}

// Counters is the file of byte counters; counters.File is one.
type Counters interface {
	store.Counters
	// Grow makes room for at least that many slots.
	Grow(slots uint32) error
}

// ledger accounts counters for their owners. This interface and those below are parts of
// store.Store, whose methods say what they do.
type ledger interface {
	Assign(owners []store.Owner) ([]uint32, error)
	Owner(slot uint32) (store.Owner, bool)
	Slots() []uint32
	SlotCount() uint32
	Slot(owner store.Owner) (slot uint32, known bool)
	Owns(owner store.Owner, slot uint32) bool
	Collect(now time.Time, counters store.Counters) error
	Commit(now time.Time, counters store.Counters, history store.History, owners []store.Owner) error
	CanChange(etag string, size int) bool
	Change(now time.Time, counters store.Counters, change store.Change, owners []store.Owner) error
	Accounted(engine string) (up, down uint64)
	Release(now time.Time, counters store.Counters, slots []uint32) error
	Flush(now time.Time, counters store.Counters) error
	Hasten(now time.Time, counters store.Counters, slots []uint32) error
	GrantStarts(counters store.Counters, slots []uint32) []int64
	OldGrants(now time.Time, inUse func(slot uint32) bool) []uint32
	History() (store.History, error)
	SetParsed(key store.ParsedKey, data []byte) error
	SetElements(head []byte, write func(io.Writer) error) (*store.Elements, error)
	Elements() *store.Elements
	FreeMapped()
}

// outbox holds what Core has not acknowledged.
type outbox interface {
	delivery.Outbox
	delivery.Reports
	Waiting() (store.Waiting, error)
	Compact(now time.Time) (*store.Trimmed, error)
	Unreported() ([]store.Damaged, error)
	ReportDamage(now time.Time, reported []store.Damaged, path string, body any) error
}

// sessionStore keeps which sessions Core was told are online.
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
