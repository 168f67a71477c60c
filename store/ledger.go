package store

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

var (
	keyMinute = []byte("minute")
	// keysEpoch both hold the epoch of the counters: layout 1 has one for each engine, and
	// both engines count into one file.
	keysEpoch = [][]byte{[]byte("epoch/" + EngineXray), []byte("epoch/" + EngineTelemt)}
)

// Owner is what a counter slot counts for.
type Owner struct {
	Engine string `json:"source"` // EngineXray or EngineTelemt
	Tag    string `json:"tag"`    // of the inbound or outbound
	// Key is the client's key on that inbound; empty for an outbound.
	Key string `json:"key,omitempty"`
	// Attribution is whom the bytes belong to; nil for nobody, and for an
	// outbound.
	Attribution *Attribution `json:"attribution,omitempty"`
}

// Attribution says whose traffic it is and through what it came.
type Attribution struct {
	UserID         int64  `json:"userId"`
	SubscriptionID *int64 `json:"subscriptionId,omitempty"`
	NodeProtocolID int64  `json:"nodeProtocolId"`
	Protocol       string `json:"protocol"` // as session events name it
}

// outbound tells whether the slot counts an outbound and not a client.
func (o Owner) outbound() bool { return o.Key == "" }

func (o Owner) id() ownerID { return ownerID{o.Engine, o.Tag, o.Key} }

func (o Owner) sameAttribution(p Owner) bool {
	a, b := o.Attribution, p.Attribution
	if a == nil || b == nil {
		return a == b
	}
	return a.UserID == b.UserID && a.NodeProtocolID == b.NodeProtocolID && a.Protocol == b.Protocol &&
		equalPointers(a.SubscriptionID, b.SubscriptionID)
}

func equalPointers(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

type ownerID struct{ engine, tag, key string }

// Counters are the counters of all slots; counters.File is one.
type Counters interface {
	// Epoch names the counters' beginning: under another epoch, all of them began again
	// at zero.
	Epoch() string
	// Read returns the counters of a slot, in bytes.
	Read(slot uint32) (up, down uint64)
}

// ledger is the memory's copy of what the file has: changed only when a
// transaction has been committed.
type ledger struct {
	owners map[uint32]Owner
	slots  map[ownerID]uint32
	free   []uint32 // slots that were given back
	next   uint32   // the first one that was never given out
	pages  map[uint32]*page
	epoch  string    // of the counters at the last read; empty before the first
	minute time.Time // the open one; zero before the first read
}

// The engines. The Xray worker adds to the counters itself; the MTProto engine adds what
// it read from telemt's metrics.
const (
	EngineXray   = "xray"
	EngineTelemt = "telemt"
)

func (s *Store) loadLedgerLocked() error {
	l := ledger{owners: map[uint32]Owner{}, slots: map[ownerID]uint32{}, pages: map[uint32]*page{}}
	err := s.db.View(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketSlots).ForEach(func(k, v []byte) error {
			var owner Owner
			if len(k) != 4 {
				return fmt.Errorf("%w: slot %x", ErrCorrupt, k)
			}
			if err := json.Unmarshal(v, &owner); err != nil {
				return fmt.Errorf("%w: slot %x: %w", ErrCorrupt, k, err)
			}
			l.add(binary.BigEndian.Uint32(k), owner)
			return nil
		}); err != nil {
			return err
		}
		if err := tx.Bucket(bucketPages).ForEach(func(k, v []byte) (err error) {
			if len(k) != 4 {
				return fmt.Errorf("%w: page %x", ErrCorrupt, k)
			}
			l.pages[binary.BigEndian.Uint32(k)], err = decodePage(v)
			return err
		}); err != nil {
			return err
		}
		meta := tx.Bucket(bucketMeta)
		l.epoch = string(meta.Get(keysEpoch[0]))
		if raw := meta.Get(keyMinute); len(raw) == 8 {
			l.minute = time.Unix(int64(binary.BigEndian.Uint64(raw)), 0).UTC()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for slot := range l.next {
		if _, used := l.owners[slot]; !used {
			l.free = append(l.free, slot)
		}
	}
	s.ledger = l
	return nil
}

func (l *ledger) add(slot uint32, owner Owner) {
	l.owners[slot] = owner
	l.slots[owner.id()] = slot
	l.next = max(l.next, slot+1)
}

func (l *ledger) remove(slot uint32) {
	delete(l.slots, l.owners[slot].id())
	delete(l.owners, slot)
	l.free = append(l.free, slot)
}

// Assign gives every owner a slot, the one that it has or a new one, durably
// before anything counts to it. A slot that exists keeps its attribution until
// Commit. The result is as long as owners, which name nobody twice.
func (s *Store) Assign(owners []Owner) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := make([]uint32, len(owners))
	var fresh []slotOwner
	free, next := s.ledger.free, s.ledger.next
	for i, owner := range owners {
		slot, known := s.ledger.slots[owner.id()]
		if !known {
			if last := len(free) - 1; last >= 0 {
				slot, free = free[last], free[:last:last] // what is behind the slice is not changed
			} else {
				slot, next = next, next+1
			}
			fresh = append(fresh, slotOwner{slot, owner})
		}
		result[i] = slot
	}
	if len(fresh) == 0 {
		return result, nil
	}
	slices.SortFunc(fresh, func(a, b slotOwner) int { return cmp.Compare(a.slot, b.slot) })
	if err := s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketSlots)
		for i := range fresh {
			if err := putJSON(bucket, bigEndian32(fresh[i].slot), &fresh[i].owner); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("assign counter slots: %w", err)
	}
	s.ledger.free, s.ledger.next = free, next
	for _, f := range fresh {
		s.ledger.add(f.slot, f.owner)
	}
	return result, nil
}

type slotOwner struct {
	slot  uint32
	owner Owner
}

// Owner tells whom a slot counts for.
func (s *Store) Owner(slot uint32) (Owner, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, ok := s.ledger.owners[slot]
	return owner, ok
}

// Slots returns every slot that has an owner.
func (s *Store) Slots() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.ledger.owners))
}

// SlotCount is how many slots the counters file must have room for.
func (s *Store) SlotCount() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.next
}
