package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	jsonv1 "github.com/go-json-experiment/json/v1"
	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

var (
	keyIdentity = []byte("identity")
	keyAttempt  = []byte("attempt")
)

// Identity is what registration gave the node.
type Identity struct {
	NodeID  string
	AuthKey secret.Text
	CoreURL string
	Pin     string // hex SHA-256 of Core's certificate; empty for none
	CAPEM   string // further authorities for Core's certificate, PEM; empty for none
	IP      string // what the node told Core as its address
	// Core is what Core said of itself last; its ID is empty for a Core that does not say.
	Core wire.CoreIdentity
	// NextKey is a key that Core has offered and that was not used successfully yet; empty
	// for none. AuthKey is good until then.
	NextKey secret.Text
	// LastKey is the key before AuthKey; empty for none. A Core that was restored from an
	// older copy knows it alone.
	LastKey secret.Text
	// Machine is the hash of the machine-id of the host that registered; empty where that is
	// not known.
	Machine string
}

// identityRecord is an Identity as it is stored.
type identityRecord struct {
	NodeID  string `json:"nodeId"`
	AuthKey string `json:"authKey"`
	CoreURL string `json:"coreUrl"`
	Pin     string `json:"pin,omitempty"`
	CAPEM   string `json:"caPem,omitempty"`
	IP      string `json:"ip,omitempty"`

	Core    *wire.CoreIdentity `json:"core,omitempty"`
	NextKey string             `json:"nextKey,omitempty"`
	LastKey string             `json:"lastKey,omitempty"`
	Machine string             `json:"machine,omitempty"`
}

func (r identityRecord) identity() Identity {
	id := Identity{
		NodeID: r.NodeID, AuthKey: secret.Text(r.AuthKey), CoreURL: r.CoreURL, Pin: r.Pin, CAPEM: r.CAPEM, IP: r.IP,
		NextKey: secret.Text(r.NextKey), LastKey: secret.Text(r.LastKey), Machine: r.Machine,
	}
	if r.Core != nil {
		id.Core = *r.Core
	}
	return id
}

func (id Identity) record() identityRecord {
	r := identityRecord{
		NodeID: id.NodeID, AuthKey: id.AuthKey.Reveal(), CoreURL: id.CoreURL, Pin: id.Pin, CAPEM: id.CAPEM, IP: id.IP,
		NextKey: id.NextKey.Reveal(), LastKey: id.LastKey.Reveal(), Machine: id.Machine,
	}
	if id.Core != (wire.CoreIdentity{}) {
		r.Core = &id.Core
	}
	return r
}

// Attempt is a registration whose answer has not come. Repeated with the same key, it gets
// the same answer from a Core that keeps to the contract.
type Attempt struct {
	CoreURL string
	Code    secret.Text
	Key     secret.Text // Idempotency-Key; it gives the answer, which has the auth key
	// Body is the request as it was sent first, byte for byte. It contains the code.
	Body secret.Text
}

// attemptRecord is an Attempt as it is stored.
type attemptRecord struct {
	CoreURL string          `json:"coreUrl"`
	Code    string          `json:"code"`
	Key     string          `json:"key"`
	Body    json.RawMessage `json:"body"`
}

// Identity returns the identity of the node. It returns ErrNotRegistered where it has none.
func (s *Store) Identity() (Identity, error) {
	var r identityRecord
	found, err := s.getMeta(keyIdentity, &r)
	if err == nil && !found {
		err = ErrNotRegistered
	}
	return r.identity(), err
}

// ChangeIdentity changes the stored identity, and nothing else: what waits, the configuration
// and the sessions stay. change must not change the node's id.
func (s *Store) ChangeIdentity(change func(*Identity)) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		raw := meta.Get(keyIdentity)
		if raw == nil {
			return ErrNotRegistered
		}
		var r identityRecord
		if err := json.Unmarshal(raw, &r); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, keyIdentity, err)
		}
		id := r.identity()
		change(&id)
		return putJSON(meta, keyIdentity, id.record())
	})
}

// SaveIdentity stores a new identity and deletes the attempt that led to it. It is for a
// process that runs no daemon. Where the node is the same as before, at the same Core, its
// configuration is kept, see History.RegisteredAnew. Otherwise the node begins without one,
// its sessions and attributions are deleted, and its outbox is set aside: the user ids in it
// mean nothing to the new Core.
func (s *Store) SaveIdentity(now time.Time, id Identity) error {
	old, err := s.Identity()
	if err != nil && !errors.Is(err, ErrNotRegistered) {
		return err
	}
	if err == nil {
		if err := s.Flush(now, nil); err != nil {
			return err
		}
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		same := err == nil && old.NodeID == id.NodeID && (old.CoreURL == id.CoreURL || old.Core.ID != "" && old.Core.ID == id.Core.ID)
		if err == nil && !same {
			reason := fmt.Sprintf("it belongs to node %s at %s, as which this host was registered before", old.NodeID, old.CoreURL)
			if err := setAllAside(tx, now, reason); err != nil {
				return err
			}
			if err := forgetOwners(tx); err != nil {
				return err
			}
		}
		if err := putJSON(meta, keyIdentity, id.record()); err != nil {
			return err
		}
		var history History
		if same {
			if kept, err := readHistory(meta); err == nil { // otherwise Core sends one
				history = kept.RegisteredAnew()
			}
		}
		if err := writeHistory(meta, history); err != nil {
			return err
		}
		return meta.Delete(keyAttempt)
	})
}

// forgetOwners deletes all attributions and all sessions. The slots and their accounts stay,
// since the counters go on from where they are.
func forgetOwners(tx *bbolt.Tx) error {
	slots, online := tx.Bucket(bucketSlots), tx.Bucket(bucketOnline)
	owners := map[string]Owner{}
	if err := slots.ForEach(func(k, v []byte) error {
		var owner Owner
		if err := json.Unmarshal(v, &owner); err != nil {
			return fmt.Errorf("%w: slot %x: %w", ErrCorrupt, k, err)
		}
		owner.Attribution = nil
		owners[string(k)] = owner
		return nil
	}); err != nil {
		return err
	}
	for k, owner := range owners {
		if err := putJSON(slots, []byte(k), owner); err != nil {
			return err
		}
	}
	var gone [][]byte
	if err := online.ForEach(func(k, _ []byte) error {
		gone = append(gone, slices.Clone(k))
		return nil
	}); err != nil {
		return err
	}
	for _, k := range gone {
		if err := online.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// Attempt returns the registration whose answer has not come, if there is one.
func (s *Store) Attempt() (a Attempt, found bool, err error) {
	var r attemptRecord
	found, err = s.getMeta(keyAttempt, &r)
	return Attempt{CoreURL: r.CoreURL, Code: secret.Text(r.Code), Key: secret.Text(r.Key), Body: secret.Text(r.Body)}, found, err
}

// SaveAttempt stores a registration, before it is sent.
func (s *Store) SaveAttempt(a Attempt) error {
	r := attemptRecord{CoreURL: a.CoreURL, Code: a.Code.Reveal(), Key: a.Key.Reveal(), Body: json.RawMessage(a.Body.Reveal())}
	return s.db.Update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(bucketMeta), keyAttempt, r) })
}

// DeleteAttempt deletes the stored registration: Core has refused it, so that no answer of it
// is lost.
func (s *Store) DeleteAttempt() error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyAttempt) })
}

// getMeta decodes a value of the meta bucket into v; found is false where there is none.
func (s *Store) getMeta(key []byte, v any) (found bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketMeta).Get(key)
		if raw == nil {
			return nil
		}
		found = true
		if err := json.Unmarshal(raw, v); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, key, err)
		}
		return nil
	})
	return found, err
}

// putJSON stores v as JSON.
func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	raw, err := jsonv1.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return b.Put(key, raw)
}
