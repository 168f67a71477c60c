package store

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"net"
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
	return s.update(func(tx *bbolt.Tx) error {
		online := tx.Bucket([]byte(bucketOnline))
		var bodies []wire.SessionEvent
		for _, e := range events {
			key := e.key()
			if e.Event.EventType == wire.Online {
				// The event is kept: the offline event is made of it, also when
				// the slot has another owner by then.
				if err := putJSON(tx, bucketOnline, key, e.Event); err != nil {
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
	var online map[SessionKey]wire.SessionEvent
	err := s.view(func(tx *bbolt.Tx) error {
		online = map[SessionKey]wire.SessionEvent{}
		var bad damages
		err := tx.Bucket([]byte(bucketOnline)).ForEach(func(k, v []byte) error {
			key, event, err := decodeSession(k, v)
			if err == nil {
				online[key] = event
			}
			return bad.pass(err)
		})
		return cmp.Or(err, bad.err())
	})
	return online, err
}

// decodeSession decodes a session that is online. The error is a *damagedError.
func decodeSession(k, v []byte) (key SessionKey, event wire.SessionEvent, err error) {
	if n := len(k) - 4; n != 0 && n != net.IPv4len && n != net.IPv6len {
		return key, event, damagedValue(bucketOnline, k, errKey)
	}
	err = decode(bucketOnline, k, v, &event)
	ip, _ := netip.AddrFromSlice(k[4:])
	return SessionKey{Slot: binary.BigEndian.Uint32(k), IP: ip}, event, err
}

func (v SessionKey) key() []byte { return append(bigEndian32(v.Slot), v.IP.AsSlice()...) }
