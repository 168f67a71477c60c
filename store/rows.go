package store

import (
	"cmp"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
)

// rowKey is what the bytes of one row have in common.
type rowKey struct {
	userID, subscriptionID, nodeProtocolID int64
	hasSubscription                        bool
}

// traffic is in bytes; up is from client to node.
type traffic struct{ up, down uint64 }

func (t *traffic) add(up, down uint64) { t.up, t.down = t.up+up, t.down+down }

// turnMinute makes rows of the open minute if the clock shows another one. After the clock was
// set back, a minute can get rows twice; Core adds them up.
func (c *collection) turnMinute() {
	c.minute = c.now.UTC().Truncate(time.Minute)
	if c.ledger.minute.IsZero() || c.minute.Equal(c.ledger.minute) {
		return
	}
	for slot := range c.ledger.all() {
		c.closeOut(slot)
	}
}

// closeOut moves the pending bytes of a slot into the row of its owner. Those of a client that
// is attributed to no user are dropped: they are counted for the outbounds too.
func (c *collection) closeOut(slot uint32) {
	if a := c.account(slot); a == nil || a.pendingUp == 0 && a.pendingDown == 0 {
		return
	}
	if c.ledger.grant(slot) {
		return
	}
	up, down := c.change(slot).take()
	if c.ledger.outbound(slot) {
		sum(c.outbounds, c.ledger.group(slot).tag).add(up, down)
	} else if row, is := c.ledger.row(slot); is {
		sum(c.rows, row).add(up, down)
	}
}

// sum returns the traffic under a key, which it adds where it is missing.
func sum[K comparable](m map[K]*traffic, key K) *traffic {
	if m[key] == nil {
		m[key] = new(traffic)
	}
	return m[key]
}

// compareEntries orders the rows of one minute.
func compareEntries(a, b wire.UsageEntry) int {
	subscription := func(e wire.UsageEntry) int64 {
		if e.SubscriptionID == nil {
			return -1
		}
		return *e.SubscriptionID
	}
	return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.NodeProtocolID, b.NodeProtocolID), cmp.Compare(subscription(a), subscription(b)))
}

// writeUsage queues the rows of clients.
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
		return compareEntries(a, b)
	})
	for batch := range slices.Chunk(entries, batchRows) {
		if err := enqueue(c.tx, KindUsage, c.keys.next(KindUsage), c.now, encodeUsage(batch), len(batch)); err != nil {
			return err
		}
	}
	return nil
}

// writeOutbounds queues the sums of outbounds.
func (c *collection) writeOutbounds() error {
	var items []wire.OutboundUsageItem
	for tag, t := range c.outbounds {
		items = append(items, wire.OutboundUsageItem{Tag: tag, BytesUp: int64(t.up), BytesDown: int64(t.down)})
	}
	slices.SortFunc(items, func(a, b wire.OutboundUsageItem) int { return cmp.Compare(a.Tag, b.Tag) })
	for batch := range slices.Chunk(items, batchRows) {
		if err := enqueueJSON(c.tx, KindOutbound, c.keys.next(KindOutbound), c.now, wire.OutboundUsageRequest{Items: batch}, len(batch)); err != nil {
			return err
		}
	}
	return nil
}
