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
	keyMinute   = []byte("minute")
	epochPrefix = []byte("epoch/")
)

// Owner is what a counter slot counts for.
type Owner struct {
	Source string `json:"source"` // of the counter; see Source
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

// Outbound tells whether the slot counts an outbound and not a client.
func (o Owner) Outbound() bool { return o.Key == "" }

func (o Owner) id() ownerID { return ownerID{o.Source, o.Tag, o.Key} }

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

type ownerID struct{ source, tag, key string }

// Source is where counters come from: one that starts at zero together is one
// source with one epoch.
type Source struct {
	Name  string
	Epoch string // another one than at the last read: all its counters began again at zero
	// Read returns the counter of a slot in bytes, and false where the source
	// can't tell it now.
	Read func(slot uint32) (up, down uint64, ok bool)
}

// ledger is the memory's copy of what the file has: changed only when a
// transaction has been committed.
type ledger struct {
	owners map[uint32]Owner
	slots  map[ownerID]uint32
	free   []uint32 // slots that were given back
	next   uint32   // the first one that was never given out
	pages  map[uint32]*page
	epochs map[string]string
	minute time.Time // the open one; zero before the first read
}

// The sources. Both keep their counters in the counters file: the Xray worker
// adds to it itself, the telemt engine adds what it read from telemt's metrics.
const (
	SourceXray   = "xray"
	SourceTelemt = "telemt"
)

func (s *Store) loadLedger() error {
	l := ledger{owners: map[uint32]Owner{}, slots: map[ownerID]uint32{}, pages: map[uint32]*page{}, epochs: map[string]string{}}
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
		cursor := meta.Cursor()
		for k, v := cursor.Seek(epochPrefix); k != nil && slices.Equal(k[:min(len(k), len(epochPrefix))], epochPrefix); k, v = cursor.Next() {
			l.epochs[string(k[len(epochPrefix):])] = string(v)
		}
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
