package corestore

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"nodeagent/coreapi"
)

// Credential is what a subscription has in the place of what is derived from its UUID.
type Credential = coreapi.Credential

// Credential returns what the subscription has of its own on an inbound; the zero Credential where
// everything is derived from the UUID.
func (s Subscription) Credential(p Protocol) (found Credential) {
	for _, c := range s.Credentials {
		switch {
		case c.Protocol != p.Protocol:
		case c.ProtocolID == p.ID && p.ID != 0:
			return c
		case c.ProtocolID == 0:
			found = c
		}
	}
	return found
}

// encodeCredentials returns how credentials are stored.
func encodeCredentials(all []Credential) (string, error) {
	if len(all) == 0 {
		return "", nil
	}
	raw, err := json.Marshal(all)
	return string(raw), err
}

func decodeCredentials(raw string) (all []Credential, err error) {
	if raw == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(raw), &all); err != nil {
		return nil, fmt.Errorf("read the credentials of a subscription: %w", err)
	}
	return all, nil
}

// rotated returns what is left of the credentials after a rotation: passwords and ids are derived
// from the new UUID. A peer of WireGuard gets another key and keeps its address, which nothing
// derives.
func rotated(all []Credential) (left []Credential) {
	for _, c := range all {
		if c.Protocol != "wireguard" {
			continue
		}
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			continue // the reader never fails
		}
		c.PrivateKey, c.PublicKey = base64.StdEncoding.EncodeToString(key.Bytes()), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
		if c.PreSharedKey != "" {
			var shared [32]byte
			_, _ = rand.Read(shared[:]) // never fails
			c.PreSharedKey = base64.StdEncoding.EncodeToString(shared[:])
		}
		left = append(left, c)
	}
	return left
}
