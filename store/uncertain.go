package store

// readEpoch compares the epoch of the counters with that of the last read.
func (c *collection) readEpoch(counters Counters) {
	now, before := counters.Epoch(), c.ledger.epochs
	c.epochs = [2]string{now, now}
	switch {
	case before[0] == now || before[1] == now:
	case before[0] == before[1] && before[0] != "", before == [2]string{} && len(c.ledger.pages) == 0 && !c.uncertain:
		c.startEpoch()
		c.uncertain = false // what is missing is at zero
	default: // the epoch is damaged: whether the counters went on from the last read is not known
		c.uncertain = true
		for number, p := range c.ledger.pages {
			for i := range p {
				c.forget(number*pageSlots+uint32(i), counters)
			}
		}
	}
}

// forget lets an account go on from what its counter says now. What was counted since the last
// read is lost, so that no byte counts twice.
func (c *collection) forget(slot uint32, counters Counters) {
	up, down := counters.Read(slot)
	if a := c.account(slot); a == nil || a.rawUp != up || a.rawDown != down {
		a := c.change(slot)
		a.rawUp, a.rawDown = up, down
	}
}

// settle lets the accounts of slots without an owner go on from what their counters say. They do
// already, unless the owner was damaged, or the file had to step back by one transaction: the next
// owner must not get the bytes of the one before.
func (c *collection) settle(counters Counters) {
	for number, p := range c.ledger.pages {
		for i := range p {
			slot := number*pageSlots + uint32(i)
			if c.ledger.owned(slot) {
				continue
			}
			c.forget(slot, counters)
			if a := c.account(slot); a.pendingUp != 0 || a.pendingDown != 0 {
				c.change(slot).take()
			}
		}
	}
	c.settled = true
}

// addMissing adds the pages that are missing. Their accounts go on from what the counters say now.
func (c *collection) addMissing(counters Counters) {
	for first := uint32(0); first < c.ledger.next(); first += pageSlots {
		if c.account(first) != nil {
			continue
		}
		for i := range uint32(pageSlots) {
			c.forget(first+i, counters)
		}
	}
}

// startEpoch notes that every counter began again at zero. That includes the slots without an
// owner: the next owner of such a slot starts at the zero of the new counters file.
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
