package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/bbolt"
)

// Collect reads the counters and writes what they gained, in one transaction. The rows of a
// minute are made by the first call in the next minute, so that a call should come right
// after each full minute. now is the time of the read.
func (s *Store) Collect(now time.Time, counters Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, nil)
}

// Commit stores the history and the attributions of the owners, which all have a slot. What
// was counted until now keeps its previous attribution. counters may be nil: then nothing is
// read first.
func (s *Store) Commit(now time.Time, counters Counters, history History, owners []Owner) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.updateLocked(now, counters, func(c *collection) error {
		for _, owner := range owners {
			slot, known := s.ledger.slotOf(owner)
			if !known {
				return fmt.Errorf("commit revision %d: %s %s has no slot", history.Current.Revision, owner.Tag, owner.Engine)
			}
			if !s.ledger.sameAttribution(slot, owner) {
				c.closeOut(slot)
				c.owners[slot] = &owner
			}
		}
		return writeHistory(c.tx, history)
	})
	s.latest = latest{}
	if err == nil {
		s.latest = latestOf(history)
	}
	return err
}

// Release accounts the slots a last time and gives them back. No engine may count to them any
// more.
func (s *Store) Release(now time.Time, counters Counters, slots []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for _, slot := range slots {
			if !s.ledger.owned(slot) {
				continue
			}
			c.closeOut(slot)
			if s.ledger.grant(slot) {
				c.change(slot).take() // the next owner begins at zero
			}
			c.owners[slot] = nil
		}
		return nil
	})
}

// Flush makes rows of everything that is accounted, also of a minute that is not over. It is
// for the start and the end of a daemon. counters may be nil: then nothing is read first.
func (s *Store) Flush(now time.Time, counters Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.updateLocked(now, counters, func(c *collection) error {
		for slot := range s.ledger.all() {
			c.closeOut(slot)
		}
		c.flushed = true
		return nil
	})
}

// updateLocked reads the counters and accounts what they gained, in one transaction. more
// belongs to the same transaction; it may be nil. On an error, the ledger is read from the
// file again.
func (s *Store) updateLocked(now time.Time, counters Counters, more func(*collection) error) error {
	return s.updateSlotsLocked(now, counters, nil, more)
}

// updateSlotsLocked is updateLocked that reads only the counters of the slots, where that is enough:
// within a minute, of counters that are known. Nil stands for all slots.
func (s *Store) updateSlotsLocked(now time.Time, counters Counters, slots []uint32, more func(*collection) error) error {
	c := &collection{
		ledger: &s.ledger, now: now, epochs: s.ledger.epochs, uncertain: s.ledger.uncertain, settled: s.ledger.settled,
		pages: map[uint32]*page{}, owners: map[uint32]*Owner{},
		rows: map[rowKey]*traffic{}, outbounds: map[string]*traffic{}, gained: map[string]*traffic{},
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		c.tx = tx
		if slots != nil && c.canReadSome(counters) {
			for _, slot := range slots {
				c.readSlot(slot, counters)
			}
		} else {
			c.read(counters)
			c.turnMinute()
		}
		if more != nil {
			if err := more(c); err != nil {
				return err
			}
		}
		return c.write()
	})
	if err != nil {
		// The transaction may have been written before its commit failed: the file decides.
		return errors.Join(fmt.Errorf("account traffic: %w", err), s.loadLedgerLocked())
	}
	c.publish()
	for engine, t := range c.gained {
		sum(s.accounted, engine).add(t.up, t.down)
	}
	return nil
}

// Accounted returns how many bytes the engine's clients moved since Open, up as they sent them.
func (s *Store) Accounted(engine string) (up, down uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.accounted[engine]; t != nil {
		return t.up, t.down
	}
	return 0, 0
}

// collection is what one transaction changes in the ledger. The ledger itself stays as it is
// until the transaction is committed; then publish copies the changes into it. A transaction
// that fails leaves no trace in memory.
//
// A byte goes this way:
//
//	counter ──read──► pending bytes of the slot's account ──closeOut──► row or outbound sum
//	──write──► batch in the outbox
//
// read runs at each collection. closeOut runs for all slots when the minute is over, and for
// one slot before its owner or attribution changes: the bytes belong to the owner that the
// ledger has, which is the one before the change. All methods are called in a transaction,
// with the store's mu held.
type collection struct {
	tx     *bbolt.Tx
	ledger *ledger
	now    time.Time

	pages     map[uint32]*page  // changed copies of the ledger's pages
	owners    map[uint32]*Owner // changed owners; nil for a slot that is given back
	epochs    [2]string         // of the counters, after the transaction
	uncertain bool              // after the transaction, as settled
	settled   bool
	minute    time.Time           // the open minute, after the transaction
	rows      map[rowKey]*traffic // of the minute that was open before
	outbounds map[string]*traffic // of the same minute, by tag
	gained    map[string]*traffic // what clients moved since the last read, by engine
	keys      batchKeys           // of the batches that the transaction makes
	flushed   bool                // nothing is left that is in no batch
}

// account returns the account of a slot, to be read only; nil where it has none yet.
func (c *collection) account(slot uint32) *account {
	if p := c.pages[slot/pageSlots]; p != nil {
		return &p[slot%pageSlots]
	}
	if p := c.ledger.pages[slot/pageSlots]; p != nil {
		return &p[slot%pageSlots]
	}
	return nil
}

// change returns the account of a slot in a copy of its page, to be changed.
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

// read adds to every account what its counter gained since the last read.
func (c *collection) read(counters Counters) {
	if counters == nil {
		return
	}
	c.readEpoch(counters)
	if !c.settled {
		c.settle(counters)
	}
	if c.uncertain {
		c.addMissing(counters)
	}
	for slot := range c.ledger.all() {
		c.readSlot(slot, counters)
	}
}

// canReadSome reports whether single counters can be read: no minute is over, and nothing is to be
// done for all of them. It keeps the minute open.
func (c *collection) canReadSome(counters Counters) bool {
	c.minute = c.now.UTC().Truncate(time.Minute)
	epoch := ""
	if counters != nil {
		epoch = counters.Epoch()
	}
	return counters != nil && c.settled && !c.uncertain && !c.ledger.unsummed && c.epochs == [2]string{epoch, epoch} && c.minute.Equal(c.ledger.minute)
}

func (c *collection) readSlot(slot uint32, counters Counters) {
	up, down := counters.Read(slot)
	if a := c.account(slot); a == nil || a.rawUp != up || a.rawDown != down {
		gain := c.change(slot).read(up, down)
		if !c.ledger.outbound(slot) && !c.ledger.grant(slot) {
			sum(c.gained, c.ledger.group(slot).engine).add(gain.up, gain.down)
		}
	}
}

// write writes the changes and queues the rows.
func (c *collection) write() error {
	meta, slots := c.tx.Bucket([]byte(bucketMeta)), c.tx.Bucket([]byte(bucketSlots))
	if err := c.writePages(); err != nil {
		return err
	}
	for slot, owner := range c.owners {
		if owner == nil {
			if err := slots.Delete(bigEndian32(slot)); err != nil {
				return err
			}
		} else if err := putJSON(c.tx, bucketSlots, bigEndian32(slot), owner); err != nil {
			return err
		}
	}
	if c.epochs != c.ledger.epochs {
		for i, key := range keysEpoch {
			if err := meta.Put(key, []byte(c.epochs[i])); err != nil {
				return err
			}
		}
	}
	if c.uncertain != c.ledger.uncertain {
		var mark []byte
		if c.uncertain {
			mark = []byte{1}
		}
		if err := replace(c.tx, keyUncertain, mark); err != nil {
			return err
		}
	}
	if !c.minute.Equal(c.ledger.minute) || c.ledger.unsummed {
		minute := binary.BigEndian.AppendUint64(nil, uint64(c.minute.Unix()))
		if err := meta.Put(keyMinute, framed(bucketMeta, keyMinute, minute)); err != nil {
			return err
		}
	}
	if len(c.rows) == 0 && len(c.outbounds) == 0 && !c.flushed {
		return nil
	}
	c.keys = readBatchKeys(c.tx)
	if err := errors.Join(c.writeUsage(), c.writeOutbounds()); err != nil {
		return err
	}
	if c.flushed {
		c.keys = newBatchKeys()
	}
	return putJSON(c.tx, bucketMeta, keyBatchKeys, c.keys)
}

// writePages writes the changed pages and their checksums, and the checksums of all others where
// an earlier version wrote them.
func (c *collection) writePages() error {
	pages, sums := c.tx.Bucket([]byte(bucketPages)), c.tx.Bucket([]byte(bucketSums))
	if c.ledger.unsummed {
		for number, p := range c.ledger.pages {
			key := bigEndian32(number)
			if err := sums.Put(key, pageSum(key, p.encode())); err != nil {
				return err
			}
		}
	}
	for number, p := range c.pages {
		key, raw := bigEndian32(number), p.encode()
		if err := pages.Put(key, raw); err != nil {
			return err
		}
		if err := sums.Put(key, pageSum(key, raw)); err != nil {
			return err
		}
	}
	return nil
}

// publish copies the changes into the ledger, once they are committed.
func (c *collection) publish() {
	l := c.ledger
	maps.Copy(l.pages, c.pages)
	for slot, owner := range c.owners {
		if owner == nil {
			l.remove(slot)
		} else {
			l.set(slot, *owner)
		}
	}
	l.epochs, l.minute = c.epochs, c.minute
	l.uncertain, l.settled, l.unsummed = c.uncertain, c.settled, false
}
