package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// Core is a client of one Core, at one address and with one key; coreclient.Client is one. Its
// methods are described there.
type Core interface {
	Heartbeat(ctx context.Context, r wire.HeartbeatRequest, held, key string, wait time.Duration) (wire.HeartbeatResponse, error)
	Config(ctx context.Context, etag string) (body []byte, newETag string, changed bool, err error)
	Update(ctx context.Context, etag string) (coreclient.Update, error)
	Post(ctx context.Context, path, key string, body []byte) error
	Skew() time.Duration
	// Said returns what Core's last answer said of itself, and the key that it offers the
	// node; both may be empty.
	Said() (wire.CoreIdentity, secret.Text)
}

// Store keeps the identity; store.Store is one.
type Store interface {
	Identity() (store.Identity, error)
	ChangeIdentity(change func(*store.Identity)) error
}

// Dial makes a client with what an identity says of Core.
type Dial func(id store.Identity, userAgent func() string) (Core, error)

// Node is a Core for the agent, whichever client it uses. Its methods may be called by any
// goroutine.
type Node struct {
	log     *slog.Logger
	store   Store
	dial    Dial
	machine string // of this host, as ThisMachine makes it; empty where it is not known
	agent   atomic.Pointer[func() string]
	changed chan struct{} // one slot; see Changed

	mu      sync.Mutex // no other lock but the store's is taken while it is held
	id      store.Identity
	core    Core
	usesKey secret.Text // the one of core: the identity's AuthKey or its NextKey
}

// Open reads the identity and makes its client. A state of an earlier version has no machine
// yet, and gets this one.
func Open(db Store, dial Dial, machine string, log *slog.Logger) (*Node, error) {
	id, err := db.Identity()
	if err != nil {
		return nil, err
	}
	n := &Node{log: log, store: db, dial: dial, machine: machine, id: id, changed: make(chan struct{}, 1)}
	if id.Machine == "" && machine != "" {
		if err := n.changeLocked(func(id *store.Identity) { id.Machine = machine }); err != nil {
			return nil, err
		}
	}
	return n, n.useLocked(n.id, firstKey(n.id))
}

// Changed returns a channel that has a value where an operator has changed whom the node asks,
// or whether it may: it is worth asking at once.
func (n *Node) Changed() <-chan struct{} { return n.changed }

func (n *Node) tellChanged() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// SetUserAgent sets the function that names the versions of the agent and its engines, for each
// request. Until then the agent is named alone.
func (n *Node) SetUserAgent(name func() string) { n.agent.Store(&name) }

func (n *Node) userAgent() string {
	if name := n.agent.Load(); name != nil {
		return (*name)()
	}
	return "node-agent"
}

// firstKey returns the key to try first: the one that Core offered last.
func firstKey(id store.Identity) secret.Text {
	if id.NextKey != "" {
		return id.NextKey
	}
	return id.AuthKey
}

// useLocked makes the client for Core's address in the identity and for a key.
func (n *Node) useLocked(id store.Identity, key secret.Text) error {
	id.AuthKey = key
	core, err := n.dial(id, n.userAgent)
	if err == nil {
		n.core, n.usesKey = core, key
	}
	return err
}

// changeLocked changes the identity on the disk and in memory.
func (n *Node) changeLocked(change func(*store.Identity)) error {
	if err := n.store.ChangeIdentity(change); err != nil {
		return fmt.Errorf("store the node's identity: %w", err)
	}
	change(&n.id)
	return nil
}

// Identity returns who the node is.
func (n *Node) Identity() store.Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.id
}

// ErrOtherMachine means that this host is not the one that registered: its machine-id is
// another one. Nothing is sent to Core then.
var ErrOtherMachine = fmt.Errorf("%w: the state folder was made on another machine (its machine-id differs), which may still be in use; "+
	"if this host takes its place: node-agent adopt; if this is a copy of it: register it as another node with node-agent register --force TOKEN", coreclient.ErrNotSent)

// machineErrLocked returns ErrOtherMachine on another machine.
func (n *Node) machineErrLocked() error {
	if n.machine != "" && n.id.Machine != n.machine {
		return ErrOtherMachine
	}
	return nil
}

// Adopt makes this host the node's machine.
func (n *Node) Adopt() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.tellChanged()
	return n.changeLocked(func(id *store.Identity) { id.Machine = n.machine })
}

// client returns the client, and ErrOtherMachine where nothing may be sent.
func (n *Node) client() (Core, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core, n.machineErrLocked()
}

// Heartbeat sends a heartbeat and takes from the answer what Core says of itself. Where Core
// does not accept the key, the node's other keys are tried at once, and where nothing answers,
// the address that Core has announced. What is found is tried once in a call.
func (n *Node) Heartbeat(ctx context.Context, r wire.HeartbeatRequest, held, key string, wait time.Duration) (wire.HeartbeatResponse, error) {
	answer, core, err := n.heartbeat(ctx, r, held, key, wait)
	switch {
	case err == nil, core == nil, ctx.Err() != nil:
		return answer, err
	case coreclient.ClassOf(err) == coreclient.Rejected && n.tryOtherKeys(ctx, core):
	case isAway(err) && n.tryNext(ctx, core):
	default:
		return answer, err
	}
	answer, _, err = n.heartbeat(ctx, r, held, key, wait)
	return answer, err
}

// isAway tells whether nobody answered at Core's address. A Core that asks to wait is there.
func isAway(err error) bool {
	_, answered := errors.AsType[*coreclient.Error](err)
	return !answered && coreclient.ClassOf(err) == coreclient.Unreachable
}

// heartbeat sends one heartbeat. It returns the client that it used; nil where none may be.
func (n *Node) heartbeat(ctx context.Context, r wire.HeartbeatRequest, held, key string, wait time.Duration) (wire.HeartbeatResponse, Core, error) {
	core, err := n.client()
	if err != nil {
		return wire.HeartbeatResponse{}, nil, err
	}
	answer, err := core.Heartbeat(ctx, r, held, key, wait)
	if err == nil {
		err = n.heard(core)
	}
	return answer, core, err
}

// heard takes what Core said in its answer to a heartbeat. It returns an error where that
// could not be stored; the next answer says the same.
func (n *Node) heard(core Core) error {
	said, offered := core.Said()
	n.mu.Lock()
	defer n.mu.Unlock()
	if core != n.core {
		return nil // the client was replaced meanwhile
	}
	if err := n.noteCoreLocked(said); err != nil {
		return err
	}
	if n.usesKey == n.id.NextKey && n.id.NextKey != "" { // Core has accepted it
		if err := n.changeLocked(func(id *store.Identity) { id.AuthKey, id.LastKey, id.NextKey = id.NextKey, id.AuthKey, "" }); err != nil {
			return err
		}
		n.log.Info("Core has given this node another key, which is used from now on")
	}
	if offered == "" || offered == n.id.AuthKey {
		return nil
	}
	if err := n.changeLocked(func(id *store.Identity) { id.NextKey = offered }); err != nil {
		return err
	}
	return n.useLocked(n.id, offered)
}

// noteCoreLocked stores what Core says of itself, where that is new.
func (n *Node) noteCoreLocked(said wire.CoreIdentity) error {
	if said.ID == "" { // a Core that does not say
		return nil
	}
	if !allowed(n.id.CoreURL, said.NextURL) {
		said.NextURL = ""
	}
	if said == n.id.Core {
		return nil
	}
	switch known := n.id.Core; {
	case known.ID != "" && known.ID != said.ID:
		n.log.Warn("another Core accepts this node's key", logkey.Core, said.ID, logkey.Before, known.ID)
	case known.ID == said.ID && known.Epoch != said.Epoch:
		n.log.Warn("Core was restored from a copy of its database", logkey.Epoch, said.Epoch, logkey.Before, known.Epoch)
	}
	return n.changeLocked(func(id *store.Identity) { id.Core = said })
}

// allowed tells whether a node at Core's address may go to the next one: never from TLS to
// plain HTTP, which would show its key.
func allowed(address, next string) bool {
	now, err := coreclient.ParseURL(address)
	if err != nil {
		return false
	}
	to, err := coreclient.ParseURL(next)
	return err == nil && (to.Scheme == "https" || now.Scheme == "http")
}

// tryOtherKeys looks for a key that Core accepts, where it has refused the one that the client
// uses: the one before an offered key, or the last one, which is all that a Core knows that was
// restored from an older copy. An offered key that is refused is forgotten. A key counts as
// accepted where Core takes a heartbeat with it: another route may be guarded otherwise.
func (n *Node) tryOtherKeys(ctx context.Context, refused Core) bool {
	n.mu.Lock()
	id, used := n.id, n.usesKey
	n.mu.Unlock()
	for _, key := range []secret.Text{id.AuthKey, id.LastKey} {
		if key == "" || key == used {
			continue
		}
		asked := id
		asked.AuthKey = key
		core, err := n.dial(asked, n.userAgent)
		if err == nil {
			_, err = core.Heartbeat(ctx, wire.HeartbeatRequest{}, "", rand.Text(), 0)
		}
		if err == nil {
			return n.useKey(refused, core, key)
		}
	}
	return false
}

// useKey makes a key that Core accepts the node's key. It reports whether it did.
func (n *Node) useKey(refused, core Core, key secret.Text) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if refused != n.core {
		return true // the client was replaced meanwhile
	}
	if err := n.changeLocked(func(id *store.Identity) {
		if key == id.LastKey {
			id.AuthKey, id.LastKey = id.LastKey, id.AuthKey
		}
		id.NextKey = ""
	}); err != nil {
		n.log.Error("go back to an earlier key", logkey.Error, err)
		return false
	}
	n.log.Warn("Core does not accept this node's newest key; an earlier one is used, which Core accepts")
	n.core, n.usesKey = core, key
	return true
}

// nextWait bounds how long Core is waited for at an announced address.
const nextWait = 15 * time.Second

// tryNext looks for Core at the address that it has announced, where it has not answered the
// client away. Where the same Core answers there, which its id says, that becomes the address.
func (n *Node) tryNext(ctx context.Context, away Core) bool {
	n.mu.Lock()
	id, key := n.id, n.usesKey
	n.mu.Unlock()
	if id.Core.NextURL == "" || id.Core.NextURL == id.CoreURL {
		return false
	}
	id.AuthKey, id.CoreURL = key, id.Core.NextURL
	ctx, cancel := context.WithTimeout(ctx, nextWait)
	defer cancel()
	core, said, err := n.probe(ctx, id)
	if err != nil || said.ID != id.Core.ID {
		n.log.Debug("Core is not at the address that it has announced", logkey.Core, secret.URL(id.CoreURL), logkey.Error, err)
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if away != n.core {
		return true // an operator has moved the node meanwhile
	}
	if err := n.changeLocked(func(stored *store.Identity) { stored.CoreURL = id.CoreURL }); err != nil {
		n.log.Error("take the address that Core has announced", logkey.Error, err)
		return false
	}
	n.core, n.usesKey = core, key
	n.log.Info("Core has moved to the address that it had announced", logkey.Core, secret.URL(id.CoreURL))
	return true
}

// probe asks for the configuration with an identity, which changes nothing at Core but that it
// takes an offered key as used. It returns the client and what the Core there says of itself.
func (n *Node) probe(ctx context.Context, id store.Identity) (Core, wire.CoreIdentity, error) {
	core, err := n.dial(id, n.userAgent)
	if err != nil {
		return nil, wire.CoreIdentity{}, err
	}
	_, _, _, err = core.Config(ctx, "")
	said, _ := core.Said()
	return core, said, err
}

// Config fetches the configuration, also on another machine: it posts nothing.
func (n *Node) Config(ctx context.Context, etag string) (body []byte, newETag string, changed bool, err error) {
	core, _ := n.client()
	return core.Config(ctx, etag)
}

// Update fetches what changed in the configuration, also on another machine.
func (n *Node) Update(ctx context.Context, etag string) (coreclient.Update, error) {
	core, _ := n.client()
	return core.Update(ctx, etag)
}

// Post sends a body, see coreclient.Client.
func (n *Node) Post(ctx context.Context, path, key string, body []byte) error {
	core, err := n.client()
	if err != nil {
		return err
	}
	return core.Post(ctx, path, key, body)
}

// Skew is this host's clock minus Core's, at the last answer.
func (n *Node) Skew() time.Duration {
	core, _ := n.client()
	return core.Skew()
}
