package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
	"nodeagent/store"
)

// Registration is the input of Register.
type Registration struct {
	Token  wire.JoinToken // Core's address, the code and the pin
	CAPEM  string         // further authorities for Core's certificate, PEM; empty for none
	Name   string         // of the node
	Host   string         // name or address under which clients reach the node
	IP     string         // address of the node
	Region string         // free text; empty for none
	Force  bool           // register a node that has an identity already, and forget that
}

// registrar is the route of Core that needs no key; coreclient.Client is one.
type registrar interface {
	Register(ctx context.Context, attempt, body secret.Text) (coreclient.Registered, error)
}

// identities is the part of the store that Register needs.
type identities interface {
	Identity() (store.Identity, error)
	SaveIdentity(now time.Time, id store.Identity) error
	Attempt() (store.Attempt, bool, error)
	SaveAttempt(a store.Attempt) error
}

// Register makes the node known to Core, and stores the identity that Core issued. An attempt
// whose answer was lost is sent again with the same body and Idempotency-Key, so that Core
// answers with the same key. The errors say what to do.
func Register(ctx context.Context, r Registration, core registrar, ids identities) (store.Identity, error) {
	old, err := ids.Identity()
	switch {
	case err == nil && !r.Force:
		return old, fmt.Errorf("this node is registered as node %s at %s; to register it again and forget that, repeat the command with --force", old.NodeID, old.CoreURL)
	case err != nil && !errors.Is(err, store.ErrNotRegistered):
		return old, err
	}
	attempt, found, err := ids.Attempt()
	if err != nil {
		return old, err
	}
	if !found || attempt.CoreURL != r.Token.CoreURL || attempt.Code != r.Token.Code {
		body, err := json.Marshal(wire.RegisterRequest{Code: r.Token.Code.Reveal(), Name: r.Name, Host: r.Host, IP: r.IP, Region: r.Region})
		if err != nil {
			return old, fmt.Errorf("encode registration: %w", err)
		}
		attempt = store.Attempt{CoreURL: r.Token.CoreURL, Code: r.Token.Code, Key: secret.Text(rand.Text()), Body: secret.Text(body)}
		if err := ids.SaveAttempt(attempt); err != nil {
			return old, fmt.Errorf("store the registration before it is sent: %w", err)
		}
	}
	answer, err := core.Register(ctx, attempt.Key, attempt.Body)
	if err != nil {
		return old, registerError(err)
	}
	id := store.Identity{
		NodeID: answer.NodeID, AuthKey: answer.AuthKey, CoreURL: r.Token.CoreURL,
		Pin: r.Token.Pin, CAPEM: r.CAPEM, IP: r.IP,
	}
	if err := ids.SaveIdentity(time.Now(), id); err != nil {
		return id, fmt.Errorf("store the node's key: %w; repeat the command: it gets the same key", err)
	}
	return id, nil
}

// registerError adds what to do about an error of the registration.
func registerError(err error) error {
	if _, answered := errors.AsType[*coreclient.Error](err); !answered {
		if errors.Is(err, coreclient.ErrNotCore) || errors.Is(err, coreclient.ErrUntrusted) {
			return err
		}
		return fmt.Errorf("%w; the code is not used up: repeat the command", err)
	}
	switch coreclient.ClassOf(err) {
	case coreclient.Rejected, coreclient.Refused:
		return fmt.Errorf("%w; ask for a new code ('node-core node add' or 'node-core node code')", err)
	case coreclient.Missing:
		return fmt.Errorf("%w; nothing at this address speaks the node routes: does it need a path?", err)
	case coreclient.Unreachable, coreclient.TooLarge:
	}
	return fmt.Errorf("%w; the code is not used up: repeat the command", err)
}
