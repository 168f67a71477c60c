package store

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
)

// SessionKey identifies a session: a client on one inbound, by its slot, at one address. IP is
// invalid where the engine does not know it.
type SessionKey struct {
	Slot uint32
	IP   netip.Addr
}

// SessionEvent is an online or offline event of a session.
type SessionEvent struct {
	SessionKey
	Event wire.SessionEvent
}

// Sessions queues the events, and notes which sessions are online after them, in one
// transaction.
func (s *Store) Sessions(now time.Time, events []SessionEvent) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		online := tx.Bucket(bucketOnline)
		var bodies []wire.SessionEvent
		for _, e := range events {
			key := e.key()
			if e.Event.EventType == wire.Online {
				// The event is kept: the offline event is made of it, also when
				// the slot has another owner by then.
				if err := putJSON(online, key, e.Event); err != nil {
					return err
				}
			} else if err := online.Delete(key); err != nil {
				return err
			}
			bodies = append(bodies, e.Event)
		}
		for batch := range slices.Chunk(bodies, batchRows) {
			if err := enqueueJSON(tx, KindEvents, rand.Text(), now, wire.SessionEventsRequest{Events: batch}, len(batch)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Online returns the sessions that Core was told are online, with their online events.
func (s *Store) Online() (map[SessionKey]wire.SessionEvent, error) {
	online := map[SessionKey]wire.SessionEvent{}
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOnline).ForEach(func(k, v []byte) error {
			var event wire.SessionEvent
			if len(k) < 4 {
				return fmt.Errorf("%w: session %x", ErrCorrupt, k)
			}
			if err := json.Unmarshal(v, &event); err != nil {
				return fmt.Errorf("%w: session %x: %w", ErrCorrupt, k, err)
			}
			ip, _ := netip.AddrFromSlice(k[4:])
			online[SessionKey{Slot: binary.BigEndian.Uint32(k), IP: ip}] = event
			return nil
		})
	})
	return online, err
}

func (v SessionKey) key() []byte { return append(bigEndian32(v.Slot), v.IP.AsSlice()...) }
