package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// withoutStrange returns the rows that can be the node's. Others name an inbound of another
// node, or an id that nobody has been given yet: one that is later than the time that ids
// carry (nextID) and than all that this database has given out. A node's key reaches as far as
// the node. Rows of inbounds, users and subscriptions that this database
// does not know are the node's: they were removed, or added before it was restored from a copy.
func withoutStrange(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time) ([]wire.UsageEntry, error) {
	last := millis(now.Add(clockError))
	var given sql.NullInt64 // by a Core whose clock was ahead, or this one's is behind now
	if err := tx.QueryRowContext(ctx, `SELECT max(seq) FROM sqlite_sequence WHERE name IN ('users', 'subscriptions', 'node_protocols')`).Scan(&given); err != nil {
		return nil, fmt.Errorf("read the last ids: %w", err)
	}
	last = max(last, given.Int64)
	foreign := map[int64]bool{} // by inbound
	own := make([]wire.UsageEntry, 0, len(entries))
	for _, e := range entries {
		is, known := foreign[e.NodeProtocolID]
		if !known {
			if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM node_protocols WHERE id = ? AND node_id != ?)`,
				e.NodeProtocolID, nodeID).Scan(&is); err != nil {
				return nil, fmt.Errorf("look for an inbound: %w", err)
			}
			foreign[e.NodeProtocolID] = is
		}
		later := e.NodeProtocolID > last || e.UserID > last || e.SubscriptionID != nil && *e.SubscriptionID > last
		if !is && !later {
			own = append(own, e)
		}
	}
	return own, nil
}
