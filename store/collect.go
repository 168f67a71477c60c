package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"nodeagent/coreclient/wire"
)

// Collect reads the counters and writes what they gained, in one transaction:
// a crash at any instruction neither loses nor doubles. Rows are made of a
// minute once it is over: a read should fall on each minute's end.
func (s *Store) Collect(now time.Time, counters Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, nil)
}

// Commit keeps the history, whose current configuration has come to run, and gives the
// slots their owners' attributions. What was counted until now still belongs to whom it
// belonged before.
func (s *Store) Commit(now time.Time, counters Counters, history History, owners []Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for _, owner := range owners {
			slot, known := s.ledger.slots[owner.id()]
			if !known {
				return fmt.Errorf("commit revision %d: %s %s has no slot", history.Current.Revision, owner.Tag, owner.Engine)
			}
			if !s.ledger.owners[slot].sameAttribution(owner) {
				c.closeOut(slot)
				c.owners[slot] = &owner
			}
		}
		return writeHistory(c.tx.Bucket(bucketMeta), history)
	})
}

// Release accounts the slots a last time and gives them back. Nothing may
// count to them any more.
func (s *Store) Release(now time.Time, counters Counters, slots []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for _, slot := range slots {
			if _, owned := s.ledger.owners[slot]; owned {
				c.closeOut(slot)
				c.owners[slot] = nil
			}
		}
		return nil
	})
}

// Flush closes the open minute, whether it is over or not: at the daemon's end.
func (s *Store) Flush(now time.Time, counters Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for slot := range s.ledger.owners {
			c.closeOut(slot)
		}
		return nil
	})
}

// update runs one transaction of reading and accounting, with more inside it.
func (s *Store) updateLocked(now time.Time, counters Counters, more func(*collection) error) error {
	c := &collection{
		ledger: &s.ledger, now: now, epoch: s.ledger.epoch,
		pages: map[uint32]*page{}, owners: map[uint32]*Owner{},
		rows: map[rowKey]*traffic{}, outbounds: map[string]*traffic{}, gained: map[string]*traffic{},
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		c.tx = tx
		c.read(counters)
		c.turnMinute()
		if more != nil {
			if err := more(c); err != nil {
				return err
			}
		}
		return c.write()
	})
	if err != nil {
		// A commit that failed at its very end may have taken effect: the file
		// says what is so.
		return errors.Join(fmt.Errorf("account traffic: %w", err), s.loadLedgerLocked())
	}
	c.publish()
	for engine, t := range c.gained {
		sum(s.accounted, engine).add(t.up, t.down)
	}
	return nil
}

// Accounted is how many bytes the engine's clients moved since the store was opened.
func (s *Store) Accounted(engine string) (up, down uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.accounted[engine]; t != nil {
		return t.up, t.down
	}
	return 0, 0
}

// collection is one transaction's changes, kept apart from the ledger until
// they are committed.
type collection struct {
	tx     *bbolt.Tx
	ledger *ledger
	now    time.Time

	pages     map[uint32]*page  // changed copies
	owners    map[uint32]*Owner // new owners; nil for a slot that is given back
	epoch     string            // of the counters afterwards
	rows      map[rowKey]*traffic
	outbounds map[string]*traffic // by tag
	gained    map[string]*traffic // of clients, by engine
	minute    time.Time           // the open one afterwards
}

type rowKey struct {
	userID, subscriptionID, nodeProtocolID int64
	hasSubscription                        bool
}

type traffic struct{ up, down uint64 }

func (t *traffic) add(up, down uint64) { t.up, t.down = t.up+up, t.down+down }

// account returns the slot's account, to be looked at.
func (c *collection) account(slot uint32) *account {
	if p := c.pages[slot/pageSlots]; p != nil {
		return &p[slot%pageSlots]
	}
	if p := c.ledger.pages[slot/pageSlots]; p != nil {
		return &p[slot%pageSlots]
	}
	return nil
}

// change returns the slot's account, to be changed.
func (c *collection) change(slot uint32) *account {
	number := slot / pageSlots
	p := c.pages[number]
	if p == nil {
		p = new(page)
		if old := c.ledger.pages[number]; old != nil {
			*p = *old
		}
		c.pages[number] = p
	}
	return &p[slot%pageSlots]
}

// read takes what every counter gained since the last read. Without counters it takes
// nothing.
func (c *collection) read(counters Counters) {
	if counters == nil {
		return
	}
	if c.epoch = counters.Epoch(); c.epoch != c.ledger.epoch {
		c.startEpoch()
	}
	for slot, owner := range c.ledger.owners {
		up, down := counters.Read(slot)
		if a := c.account(slot); a == nil || a.rawUp != up || a.rawDown != down {
			gain := c.change(slot).read(up, down)
			if !owner.outbound() {
				sum(c.gained, owner.Engine).add(gain.up, gain.down)
			}
		}
	}
}

// startEpoch takes every counter as read at zero, also one that has no owner now: its
// next owner counts from the new file's zero.
func (c *collection) startEpoch() {
	for number, p := range c.ledger.pages {
		for i := range p {
			if p[i].rawUp != 0 || p[i].rawDown != 0 {
				a := c.change(number*pageSlots + uint32(i))
				a.rawUp, a.rawDown = 0, 0
			}
		}
	}
}

// turnMinute closes the open minute when the clock shows another one. A clock
// that was set back makes rows of a minute that had some already: Core adds
// them up.
func (c *collection) turnMinute() {
	c.minute = c.now.UTC().Truncate(time.Minute)
	if c.ledger.minute.IsZero() || c.minute.Equal(c.ledger.minute) {
		return
	}
	for slot := range c.ledger.owners {
		c.closeOut(slot)
	}
}

// closeOut moves the slot's pending bytes into the rows.
func (c *collection) closeOut(slot uint32) {
	if a := c.account(slot); a == nil || a.pendingUp == 0 && a.pendingDown == 0 {
		return
	}
	up, down := c.change(slot).take()
	owner := c.ledger.owners[slot]
	switch {
	case owner.outbound():
		sum(c.outbounds, owner.Tag).add(up, down)
	case owner.Attribution != nil:
		key := rowKey{userID: owner.Attribution.UserID, nodeProtocolID: owner.Attribution.NodeProtocolID}
		if id := owner.Attribution.SubscriptionID; id != nil {
			key.subscriptionID, key.hasSubscription = *id, true
		}
		sum(c.rows, key).add(up, down)
	}
}

func sum[K comparable](m map[K]*traffic, key K) *traffic {
	if m[key] == nil {
		m[key] = new(traffic)
	}
	return m[key]
}

func (c *collection) write() error {
	meta, slots, pages := c.tx.Bucket(bucketMeta), c.tx.Bucket(bucketSlots), c.tx.Bucket(bucketPages)
	for number, p := range c.pages {
		if err := pages.Put(bigEndian32(number), p.encode()); err != nil {
			return err
		}
	}
	for slot, owner := range c.owners {
		if owner == nil {
			if err := slots.Delete(bigEndian32(slot)); err != nil {
				return err
			}
		} else if err := putJSON(slots, bigEndian32(slot), owner); err != nil {
			return err
		}
	}
	if c.epoch != c.ledger.epoch {
		for _, key := range keysEpoch {
			if err := meta.Put(key, []byte(c.epoch)); err != nil {
				return err
			}
		}
	}
	if !c.minute.Equal(c.ledger.minute) {
		if err := meta.Put(keyMinute, binary.BigEndian.AppendUint64(nil, uint64(c.minute.Unix()))); err != nil {
			return err
		}
	}
	if err := c.writeUsage(); err != nil {
		return err
	}
	return c.writeOutbounds()
}

func (c *collection) writeUsage() error {
	recordedAt := c.ledger.minute
	if recordedAt.IsZero() {
		recordedAt = c.minute
	}
	entries := make([]wire.UsageEntry, 0, len(c.rows))
	for key, t := range c.rows {
		entry := wire.UsageEntry{
			UserID: key.userID, NodeProtocolID: key.nodeProtocolID,
			BytesUp: int64(t.up), BytesDown: int64(t.down), RecordedAt: recordedAt,
		}
		if key.hasSubscription {
			entry.SubscriptionID = &key.subscriptionID
		}
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, func(a, b wire.UsageEntry) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.NodeProtocolID, b.NodeProtocolID))
	})
	for batch := range slices.Chunk(entries, batchRows) {
		if err := enqueue(c.tx, KindUsage, c.now, encodeUsage(batch), len(batch)); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) writeOutbounds() error {
	var items []wire.OutboundUsageItem
	for tag, t := range c.outbounds {
		items = append(items, wire.OutboundUsageItem{Tag: tag, BytesUp: int64(t.up), BytesDown: int64(t.down)})
	}
	slices.SortFunc(items, func(a, b wire.OutboundUsageItem) int { return cmp.Compare(a.Tag, b.Tag) })
	for batch := range slices.Chunk(items, batchRows) {
		if err := enqueueJSON(c.tx, KindOutbound, c.now, wire.OutboundUsageRequest{Items: batch}, len(batch)); err != nil {
			return err
		}
	}
	return nil
}

// publish makes the committed changes the ledger's.
func (c *collection) publish() {
	l := c.ledger
	maps.Copy(l.pages, c.pages)
	for slot, owner := range c.owners {
		if owner == nil {
			l.remove(slot)
		} else {
			l.owners[slot] = *owner
		}
	}
	l.epoch, l.minute = c.epoch, c.minute
}
