package store

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

var (
	keyIdentity = []byte("identity")
	keyAttempt  = []byte("attempt")
	keyRoom     = []byte("room") // in the bucket spare; it fills the page

	keyWorkerSecret = []byte("workerSecret")
)

// workerSecretSize is in bytes.
const workerSecretSize = 32

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
		found, err = s.restoreIdentity(&r)
	}
	if err == nil && !found {
		err = ErrNotRegistered
	}
	return r.identity(), err
}

// ChangeIdentity changes the stored identity, and nothing else: what waits, the configuration
// and the sessions stay. change must not change the node's id.
func (s *Store) ChangeIdentity(change func(*Identity)) error {
	id, err := s.Identity() // the copy of it, where it is damaged
	if err != nil {
		return err
	}
	change(&id)
	return s.update(func(tx *bbolt.Tx) error { return putIdentity(tx, id) })
}

// putIdentity stores the identity and its copy.
func putIdentity(tx *bbolt.Tx, id Identity) error {
	for _, bucket := range []string{bucketMeta, bucketSpare} {
		if err := putJSON(tx, bucket, keyIdentity, id.record()); err != nil {
			return err
		}
	}
	return nil
}

// restoreIdentity puts the copy of the identity into the place of the identity, where that was
// damaged; found is false where there is no copy.
func (s *Store) restoreIdentity(r *identityRecord) (found bool, err error) {
	err = s.update(func(tx *bbolt.Tx) error {
		raw := tx.Bucket([]byte(bucketSpare)).Get(keyIdentity)
		if found = raw != nil; !found {
			return nil
		}
		if err := decode(bucketSpare, keyIdentity, raw, r); err != nil {
			return err
		}
		return putJSON(tx, bucketMeta, keyIdentity, r)
	})
	return found, err
}

// copyIdentity makes the copy of the identity, which versions before this one did not make. It makes
// the bucket of the copy so large that bbolt gives it a page of its own: a page that has both is
// lost with both.
func copyIdentity(tx *bbolt.Tx) error {
	if spare := tx.Bucket([]byte(bucketSpare)); spare.Get(keyRoom) == nil {
		if err := spare.Put(keyRoom, make([]byte, os.Getpagesize()/4)); err != nil {
			return fmt.Errorf("make room for the copy of the identity: %w", err)
		}
	}
	raw := tx.Bucket([]byte(bucketMeta)).Get(keyIdentity)
	if raw == nil {
		return nil
	}
	var r, spare identityRecord
	if err := decode(bucketMeta, keyIdentity, raw, &r); err != nil {
		return err
	}
	copied := tx.Bucket([]byte(bucketSpare)).Get(keyIdentity)
	if copied != nil && decode(bucketSpare, keyIdentity, copied, &spare) == nil && reflect.DeepEqual(spare, r) {
		return nil
	}
	return putJSON(tx, bucketSpare, keyIdentity, r) // also where a version without copies has changed the identity
}

// SaveIdentity stores a new identity and deletes the attempt that led to it. It is for a
// process that runs no daemon. Where the node is the same as before, at the same Core, its
// configuration is kept, see History.RegisteredAnew. Otherwise the node begins without one,
// its sessions and attributions are deleted, and its outbox is set aside: the user ids in it
// mean nothing to the new Core. That is also done where the identity before was damaged.
func (s *Store) SaveIdentity(now time.Time, id Identity) error {
	old, err := s.Identity()
	if err != nil && !errors.Is(err, ErrNotRegistered) {
		return err
	}
	known := err == nil
	if known || len(s.Slots()) > 0 {
		if err := s.Flush(now, nil); err != nil {
			return err
		}
	}
	same := known && old.NodeID == id.NodeID && (old.CoreURL == id.CoreURL || old.Core.ID != "" && old.Core.ID == id.Core.ID)
	reason := "the identity of this node was damaged, so that it isn't known to which Core it belongs; put it back with 'node-agent outbox retry' if it is this one"
	if known {
		reason = fmt.Sprintf("it belongs to node %s at %s, as which this host was registered before", old.NodeID, secret.URL(old.CoreURL))
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.latest = latest{}
	}()
	return s.update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		if !same {
			if err := setAllAside(tx, now, reason); err != nil {
				return err
			}
			if err := forgetOwners(tx); err != nil {
				return err
			}
		}
		if err := putIdentity(tx, id); err != nil {
			return err
		}
		var history History
		if same {
			kept, err := readHistory(tx)
			if err != nil {
				return err
			}
			history = kept.RegisteredAnew()
		}
		if err := writeHistory(tx, history); err != nil {
			return err
		}
		return meta.Delete(keyAttempt)
	})
}

// forgetOwners deletes all attributions and all sessions. The slots and their accounts stay,
// since the counters go on from where they are.
func forgetOwners(tx *bbolt.Tx) error {
	slots, online := tx.Bucket([]byte(bucketSlots)), tx.Bucket([]byte(bucketOnline))
	var bad damages
	owners := map[string]Owner{}
	if err := slots.ForEach(func(k, v []byte) error {
		var owner Owner
		if err := decode(bucketSlots, k, v, &owner); err != nil {
			return bad.pass(err)
		}
		owner.Attribution = nil
		owners[string(k)] = owner
		return nil
	}); err != nil {
		return err
	}
	if err := bad.err(); err != nil {
		return err
	}
	for k, owner := range owners {
		if err := putJSON(tx, bucketSlots, []byte(k), owner); err != nil {
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

// WorkerSecret returns the secret by which daemons and workers of this node know each other. The
// first call makes it.
func (s *Store) WorkerSecret() ([]byte, error) {
	var r workerRecord
	found, err := s.getMeta(keyWorkerSecret, &r)
	if err != nil || found && len(r.Secret) == workerSecretSize {
		return r.Secret, err
	}
	r.Secret = make([]byte, workerSecretSize)
	_, _ = rand.Read(r.Secret) // never fails
	return r.Secret, s.update(func(tx *bbolt.Tx) error { return putJSON(tx, bucketMeta, keyWorkerSecret, r) })
}

// workerRecord is what daemons and workers know, as it is stored.
type workerRecord struct {
	Secret []byte `json:"secret"`
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
	return s.update(func(tx *bbolt.Tx) error { return putJSON(tx, bucketMeta, keyAttempt, r) })
}

// DeleteAttempt deletes the stored registration: Core has refused it, so that no answer of it
// is lost.
func (s *Store) DeleteAttempt() error {
	return s.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucketMeta)).Delete(keyAttempt) })
}

// getMeta decodes a value of the meta bucket into v; found is false where there is none.
func (s *Store) getMeta(key []byte, v any) (found bool, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		raw := tx.Bucket([]byte(bucketMeta)).Get(key)
		if found = raw != nil; !found {
			return nil
		}
		return decode(bucketMeta, key, raw, v)
	})
	return found, err
}
