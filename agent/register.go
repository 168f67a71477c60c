package agent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	DeleteAttempt() error
}

// Register makes the node known to Core, and stores the identity that Core issued. An attempt
// whose answer was lost is sent again with the same body and Idempotency-Key, so that Core
// answers with the same key. The errors say what to do.
func Register(ctx context.Context, r Registration, core registrar, ids identities) (store.Identity, error) {
	old, err := ids.Identity()
	switch {
	case err == nil && !r.Force:
		return old, fmt.Errorf("this node is registered as node %s at %s; to register it again and forget that, repeat the command with --force", old.NodeID, secret.URL(old.CoreURL))
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
		if refused(err) {
			// Core has not registered the node, so that another try may say something else.
			err = errors.Join(registerError(err), ids.DeleteAttempt())
			return old, err
		}
		return old, registerError(err)
	}
	id := store.Identity{
		NodeID: answer.NodeID, AuthKey: answer.AuthKey, CoreURL: r.Token.CoreURL,
		Pin: r.Token.Pin, CAPEM: r.CAPEM, IP: r.IP, Core: answer.Core,
	}
	if err := ids.SaveIdentity(time.Now(), id); err != nil {
		return id, fmt.Errorf("store the node's key: %w; repeat the command: it gets the same key", err)
	}
	return id, nil
}

// registerError adds what to do about an error of the registration.
func registerError(err error) error {
	answer, answered := errors.AsType[*coreclient.Error](err)
	if !answered {
		if errors.Is(err, coreclient.ErrNotCore) || errors.Is(err, coreclient.ErrUntrusted) {
			return err
		}
		return fmt.Errorf("%w; the code is not used up: repeat the command", err)
	}
	gone := answer.Status == http.StatusGone || answer.Status == http.StatusConflict
	switch {
	case gone, answer.Code == codeUsed, answer.Code == codeExpired:
		return fmt.Errorf("%w; ask for a new code ('node-core node add' or 'node-core node code')", err)
	case answer.Code == codeUnknown:
		return fmt.Errorf("%w; copy the whole join token that 'node-core node add' printed, from the Core that made it", err)
	}
	switch coreclient.ClassOf(err) {
	case coreclient.Rejected:
		return fmt.Errorf("%w; check the code, and that nothing between this host and Core refuses the request", err)
	case coreclient.Refused, coreclient.TooLarge:
		return fmt.Errorf("%w; the code is not used up: correct what Core names, and repeat the command", err)
	case coreclient.Missing:
		return fmt.Errorf("%w; nothing at this address speaks the node routes: does it need a path?", err)
	case coreclient.Unreachable:
	}
	return fmt.Errorf("%w; the code is not used up: repeat the command", err)
}

// Codes with which Core refuses a registration code.
const (
	codeUsed    = "code_used"
	codeExpired = "code_expired"
	codeUnknown = "code_unknown"
)

// refused tells whether Core has answered that it does not register the node.
func refused(err error) bool {
	switch _, answered := errors.AsType[*coreclient.Error](err); coreclient.ClassOf(err) {
	case coreclient.Rejected, coreclient.Refused, coreclient.TooLarge:
		return answered
	case coreclient.Unreachable, coreclient.Missing:
	}
	return false
}
