package ipc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Version is the version of this protocol: of the handshake, the requests and the messages. It
// grows when one side would misunderstand the other.
const Version = 1

// handshakeTimeout bounds a handshake. A worker answers one also during an operation.
const handshakeTimeout = 10 * time.Second

// The handshake has three frames: the daemon's greeting, the worker's reply, the daemon's proof.
// Each side proves to the other that it knows the secret, which never leaves either.
type (
	greeting struct {
		Version int    `json:"version"`
		Nonce   []byte `json:"nonce"`
	}
	reply struct {
		Version int    `json:"version"`
		Build   string `json:"build,omitzero"` // see Build
		Nonce   []byte `json:"nonce,omitzero"`
		Proof   []byte `json:"proof,omitzero"`
	}
	proof struct {
		Proof []byte `json:"proof"`
	}
)

// ErrOtherVersion means that the other side speaks another version of the protocol.
var ErrOtherVersion = errors.New("the worker speaks another version of the protocol")

// ErrOtherSecret means that the other side does not know the secret.
var ErrOtherSecret = errors.New("the worker does not know this node's secret: it is of another node, or of a state folder that is gone")

// prove returns the proof of one side, which role names.
func prove(secret []byte, role string, daemon, worker []byte) []byte {
	sum := hmac.New(sha256.New, secret)
	for _, part := range [][]byte{[]byte(role), daemon, worker} {
		_, _ = fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return sum.Sum(nil)
}

func nonce() []byte {
	n := make([]byte, 32)
	_, _ = rand.Read(n) // never fails
	return n
}

// Greet is the daemon's side of the handshake. It returns the worker's Build.
func Greet(conn *FrameConn, secret []byte) (build string, err error) {
	if err := conn.Within(time.Now().Add(handshakeTimeout)); err != nil {
		return "", fmt.Errorf("greet the worker: %w", err)
	}
	ours := nonce()
	var r reply
	if err := conn.Write(greeting{Version, ours}); err != nil {
		return "", fmt.Errorf("greet the worker: %w", err)
	}
	if err := conn.Read(&r); err != nil {
		return "", fmt.Errorf("read the worker's greeting: %w", err)
	}
	switch {
	case r.Version != Version:
		return "", fmt.Errorf("%w (%d) than this node-agent (%d)", ErrOtherVersion, r.Version, Version)
	case !hmac.Equal(r.Proof, prove(secret, "worker", ours, r.Nonce)):
		return "", ErrOtherSecret
	}
	if err := conn.Write(proof{prove(secret, "daemon", ours, r.Nonce)}); err != nil {
		return "", fmt.Errorf("greet the worker: %w", err)
	}
	return r.Build, conn.Within(time.Time{})
}

// Answer is the worker's side of the handshake.
func Answer(conn *FrameConn, secret []byte) error {
	if err := conn.Within(time.Now().Add(handshakeTimeout)); err != nil {
		return fmt.Errorf("answer a greeting: %w", err)
	}
	var g greeting
	if err := conn.Read(&g); err != nil {
		return fmt.Errorf("read a greeting: %w", err)
	}
	if g.Version != Version {
		return errors.Join(fmt.Errorf("a daemon speaks version %d of the protocol, this worker %d", g.Version, Version), conn.Write(reply{Version: Version}))
	}
	ours := nonce()
	if err := conn.Write(reply{Version, Build(), ours, prove(secret, "worker", g.Nonce, ours)}); err != nil {
		return fmt.Errorf("answer a greeting: %w", err)
	}
	var p proof
	if err := conn.Read(&p); err != nil {
		return fmt.Errorf("read a daemon's proof: %w", err)
	}
	if !hmac.Equal(p.Proof, prove(secret, "daemon", g.Nonce, ours)) {
		return errors.New("a process that does not know the secret has connected")
	}
	return conn.Within(time.Time{})
}
