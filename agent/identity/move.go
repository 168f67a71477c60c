package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// Move says where Core is from now on.
type Move struct {
	URL   string `json:"url"`
	CAPEM string `json:"caPem,omitempty"` // authorities for its certificate, PEM; empty keeps the pin and the authorities
	// Other takes a Core that has another id than the one before. The key is accepted there.
	Other bool `json:"other,omitempty"`
}

// ErrOtherCore means that another Core than the node's accepts its key at an address.
var ErrOtherCore = errors.New("another Core")

// SetCore moves the node to another address of its Core. It first asks for the configuration
// there, with the node's key. Everything is kept: the key, what waits, the configuration.
//
// Errors: ErrOtherCore where a Core with another id accepts the key; unless m.Other is set. A
// Core that does not accept the key, or none, changes nothing either. The errors say what to
// do.
func (n *Node) SetCore(ctx context.Context, m Move) error {
	if _, err := coreclient.ParseURL(m.URL); err != nil {
		return err
	}
	n.mu.Lock()
	id, keys := n.id, []secret.Text{n.usesKey, n.id.AuthKey, n.id.LastKey}
	n.mu.Unlock()
	id.CoreURL = m.URL
	if m.CAPEM != "" {
		id.CAPEM, id.Pin = m.CAPEM, ""
	}
	core, said, key, err := n.probeKeys(ctx, id, keys)
	if err != nil {
		return probeError(id, said, err)
	}
	known := id.Core.ID
	if known != "" && said.ID != known && !m.Other {
		return fmt.Errorf("%w (its id is %q, and that of the node's Core is %q) accepts this node's key at %s: what waits would be counted there, and its configuration would replace this node's", ErrOtherCore, said.ID, known, secret.URL(m.URL))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.changeLocked(func(stored *store.Identity) {
		stored.CoreURL, stored.CAPEM, stored.Pin = id.CoreURL, id.CAPEM, id.Pin
		stored.Core.NextURL = ""
		switch key {
		case stored.NextKey:
		case stored.LastKey:
			stored.AuthKey, stored.LastKey, stored.NextKey = stored.LastKey, stored.AuthKey, ""
		default:
			stored.NextKey = ""
		}
	}); err != nil {
		return err
	}
	n.core, n.usesKey = core, key
	n.tellChanged()
	return nil
}

// probeKeys asks with each of the keys until one is accepted. Its error is that of the first;
// what the Core there says of itself comes with an error too.
func (n *Node) probeKeys(ctx context.Context, id store.Identity, keys []secret.Text) (core Core, said wire.CoreIdentity, accepted secret.Text, err error) {
	for i, key := range keys {
		if key == "" || slices.Contains(keys[:i], key) {
			continue
		}
		id.AuthKey = key
		var failed error
		if core, said, failed = n.probe(ctx, id); failed == nil {
			return core, said, key, nil
		}
		err = cmp.Or(err, failed)
		if coreclient.ClassOf(failed) != coreclient.Rejected {
			break
		}
	}
	return nil, said, "", err
}

// probeError says what to do about a Core that gives no configuration at a new address.
func probeError(id store.Identity, said wire.CoreIdentity, err error) error {
	at := secret.URL(id.CoreURL)
	switch {
	case coreclient.ClassOf(err) == coreclient.Rejected && id.Core.ID != "" && said.ID == id.Core.ID:
		return fmt.Errorf("this node's Core answers at %s and does not accept the node's key, which happens where it was restored from an older copy; nothing was changed; get a code there (node-core node code NAME) and register again: %w", at, err)
	case coreclient.ClassOf(err) == coreclient.Rejected:
		return fmt.Errorf("the Core at %s does not know this node; nothing was changed; to leave the node's Core and become a node of that one: node-agent register --force TOKEN, which sets aside what waits for the one before: %w", at, err)
	case errors.Is(err, coreclient.ErrUntrusted):
		return fmt.Errorf("nothing was changed; where Core has another certificate there, give the authority that signed it with --core-ca: %w", err)
	}
	return fmt.Errorf("no Core answers at %s; nothing was changed: %w", at, err)
}
