package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

var (
	keyMinute = []byte("minute")
	// keyUncertain is there while ledger.uncertain is set.
	keyUncertain = []byte("uncertain")
	// keysEpoch both have the same value, the epoch of the counters. Layout 1 has one key for
	// each engine, but both engines count into one file.
	keysEpoch = [][]byte{[]byte("epoch/" + EngineXray), []byte("epoch/" + EngineTelemt)}
)

// Owner is the client on one inbound, the outbound, or the person with a grant, that a counter slot
// counts. Of a grant, Tag is the id and Key is the key of the person.
type Owner struct {
	Engine string `json:"source"` // EngineXray, EngineTelemt or EngineGrant
	Tag    string `json:"tag"`    // of the inbound or outbound, or the id of the grant
	// Key is the client's key on that inbound; empty for an outbound.
	Key string `json:"key,omitempty"`
	// Attribution is nil for an outbound, and for a client that Core's client map does not
	// name.
	Attribution *Attribution `json:"attribution,omitempty"`
	// Expires is when a grant has expired, in Unix seconds; 0 for owners that are no grant.
	Expires int64 `json:"expires,omitempty"`
}

// Attribution is what usage rows and session events say about a client.
type Attribution struct {
	UserID         int64  `json:"userId"`
	SubscriptionID *int64 `json:"subscriptionId,omitempty"`
	NodeProtocolID int64  `json:"nodeProtocolId"`
	Protocol       string `json:"protocol"` // for session events
}

// Counters are the counters of all slots; counters.File is one.
type Counters interface {
	// Epoch identifies the counters. Under another epoch, all of them began again at zero.
	Epoch() string
	// Read returns the counters of a slot, in bytes; up is from client to node.
	Read(slot uint32) (up, down uint64)
}

// ledger says who owns each slot, and how far its counter is accounted. It is a copy of the
// buckets slots and pages in memory, guarded by the store's mu.
//
// A slot is given out (Assign) before an engine counts to it, and given back (Release) when
// no engine does any more. In between, its account remembers the counter as it was read last,
// and the bytes that are in no row yet: see page.go. A slot that is given back keeps its
// account, so that its next owner starts at the counter's present value: the counters file
// only grows.
//
// The ledger changes only when a transaction has been committed. A reader in memory never
// sees what the file does not have.
type ledger struct {
	owners
	free   []uint32         // slots that were given back
	pages  map[uint32]*page // by slot / pageSlots
	epochs [2]string        // of the counters at the last read; they differ where one is damaged
	minute time.Time        // the open minute, UTC; zero before the first read

	// unsummed tells that an earlier version wrote the file: its pages have no checksums.
	unsummed bool
	// uncertain tells that accounts or owners were damaged: an account that is missing is not
	// known to be at zero, as it is otherwise.
	uncertain bool
	// settled tells that the accounts of slots without an owner are at the counters' values.
	settled bool
}

// The engines that count. The Xray worker adds to the counters itself; the MTProto engine adds
// what it reads from telemt's metrics.
const (
	EngineXray   = "xray"
	EngineTelemt = "telemt"
	// EngineGrant stands for both engines, which count into one slot for a grant.
	EngineGrant = "grant"
)

// loadLedgerLocked reads the ledger from the file. Owners and accounts that are damaged are set
// aside.
func (s *Store) loadLedgerLocked() error {
	var l ledger
	err := s.view(func(tx *bbolt.Tx) error {
		l = ledger{pages: map[uint32]*page{}}
		var bad damages
		if err := bad.pass(l.loadMinute(tx)); err != nil {
			return err
		}
		meta := tx.Bucket([]byte(bucketMeta))
		for i, key := range keysEpoch {
			l.epochs[i] = string(meta.Get(key))
		}
		l.uncertain = meta.Get(keyUncertain) != nil
		slots := tx.Bucket([]byte(bucketSlots))
		if last, _ := slots.Cursor().Last(); len(last) == 4 {
			// An owner has more than 64 bytes in the file: a damaged key costs no memory.
			l.reserve(int(min(int64(binary.BigEndian.Uint32(last))+1, tx.Size()/64)))
		}
		var reader ownerReader
		if err := slots.ForEach(func(k, v []byte) error { return bad.pass(l.loadSlot(&reader, k, v)) }); err != nil {
			return err
		}
		sums := tx.Bucket([]byte(bucketSums))
		if err := tx.Bucket([]byte(bucketPages)).ForEach(func(k, v []byte) error { return bad.pass(l.loadPage(k, v, sums.Get(k))) }); err != nil {
			return err
		}
		return bad.err()
	})
	if err != nil {
		return err
	}
	l.fit()
	for slot := range l.next() {
		if !l.owned(slot) {
			l.free = append(l.free, slot)
		}
	}
	s.ledger = l
	return nil
}

// loadMinute loads the open minute, Unix seconds as uint64 big endian, with a checksum. An earlier
// version wrote it without one.
func (l *ledger) loadMinute(tx *bbolt.Tx) error {
	raw := tx.Bucket([]byte(bucketMeta)).Get(keyMinute)
	if raw == nil {
		return nil
	}
	value := raw
	if l.unsummed = len(raw) == 8; !l.unsummed {
		var ok bool
		if value, ok = unframed(bucketMeta, keyMinute, raw); !ok || len(value) != 8 {
			return damagedValue(bucketMeta, keyMinute, errSum)
		}
	}
	l.minute = time.Unix(int64(binary.BigEndian.Uint64(value)), 0).UTC()
	return nil
}

func (l *ledger) loadSlot(r *ownerReader, k, v []byte) error {
	var owner Owner
	if len(k) != 4 {
		return damagedValue(bucketSlots, k, errKey)
	}
	if err := r.decode(k, v, &owner); err != nil {
		return err
	}
	slot := binary.BigEndian.Uint32(k)
	if slot >= maxSlots || owner.Engine == "" {
		return damagedValue(bucketSlots, k, errKey)
	}
	if has, twice := l.add(slot, owner); twice {
		return damagedValue(bucketSlots, k, fmt.Errorf("slot %d has the same owner", has))
	}
	return nil
}

func (l *ledger) loadPage(k, v, sum []byte) error {
	if len(k) != 4 {
		return damagedValue(bucketPages, k, errKey)
	}
	if !l.unsummed {
		if err := checkPage(k, v, sum); err != nil {
			return damagedValue(bucketPages, k, err)
		}
	}
	p, err := decodePage(v)
	if err != nil {
		return damagedValue(bucketPages, k, err)
	}
	l.pages[binary.BigEndian.Uint32(k)] = p
	return nil
}

// maxSlots bounds the slots, and with them the memory that a damaged key can cost.
const maxSlots = 1 << 26

// remove notes that a slot was given back.
func (l *ledger) remove(slot uint32) {
	l.owners.remove(slot)
	l.free = append(l.free, slot)
}

// Assign returns a slot for each owner: the one that it has, or a new one, which is on the
// disk before Assign returns. A slot that exists keeps its attribution until Commit. No owner
// may come twice. The result has the order of owners.
func (s *Store) Assign(owners []Owner) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := make([]uint32, len(owners))
	var fresh []slotOwner
	free, next := s.ledger.free, s.ledger.next()
	for i, owner := range owners {
		slot, known := s.ledger.slotOf(owner)
		if !known {
			if last := len(free) - 1; last >= 0 {
				slot, free = free[last], free[:last:last] // the ledger's own slice stays as it is
			} else {
				slot, next = next, next+1
			}
			fresh = append(fresh, slotOwner{slot, owner})
		} else {
			s.ledger.owns(owner, slot)
		}
		result[i] = slot
	}
	if len(fresh) == 0 {
		return result, nil
	}
	slices.SortFunc(fresh, func(a, b slotOwner) int { return cmp.Compare(a.slot, b.slot) })
	if err := s.update(func(tx *bbolt.Tx) error {
		for i := range fresh {
			if err := putJSON(tx, bucketSlots, bigEndian32(fresh[i].slot), &fresh[i].owner); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("assign counter slots: %w", err)
	}
	s.ledger.free = free
	for _, f := range fresh {
		s.ledger.add(f.slot, f.owner)
	}
	return result, nil
}

// slotOwner is a new slot.
type slotOwner struct {
	slot  uint32
	owner Owner
}

// Owner returns the owner of a slot; false where it has none.
func (s *Store) Owner(slot uint32) (Owner, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ledger.owned(slot) {
		return Owner{}, false
	}
	return s.ledger.owner(slot), true
}

// Slot returns the slot of an owner.
func (s *Store) Slot(owner Owner) (slot uint32, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.slotOf(owner)
}

// Owns reports whether the slot is that of the owner. If it is, the store keeps the owner's text of the
// key and drops its own.
func (s *Store) Owns(owner Owner, slot uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.owns(owner, slot)
}

// Slots returns the slots that have an owner, in ascending order.
func (s *Store) Slots() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(s.ledger.all())
}

// SlotCount returns how many slots the counters file must have room for.
func (s *Store) SlotCount() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.next()
}
