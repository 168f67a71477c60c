package corestore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"nodeagent/coreclient/wire"
)

// errDuplicateBatch rolls back the transaction of a batch that is stored already.
var errDuplicateBatch = errors.New("the batch is stored already")

// applyOnce runs f in a transaction that also stores the batch's idempotency key. Where the
// node has sent a batch with this key to this route before, f does not run and applyOnce
// returns nil, so that the node gets the same answer again. A batch without a key is applied
// each time that it comes.
func (s *Store) applyOnce(ctx context.Context, nodeID int64, route, key string, f func(tx *sql.Tx) error) error {
	pool := s.write
	switch route {
	case wire.PathUsage:
		pool = s.batches
	case wire.PathOutboundUsage, wire.PathSessionEvents:
	default:
		defer s.known.forgetBeats(nodeID)
	}
	err := s.retried(ctx, pool, func(tx *sql.Tx) error {
		if key != "" {
			first, err := inserted(tx.ExecContext(ctx, keepKey, nodeID, key, route, millis(time.Now())))
			if err != nil {
				return err
			}
			if !first {
				return errDuplicateBatch
			}
		}
		return f(tx)
	})
	if errors.Is(err, errDuplicateBatch) {
		return nil
	}
	return err
}

// keepKey stores a batch's idempotency key, and inserts nothing where it is there.
const keepKey = `INSERT INTO idempotency_keys (node_id, key, route, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`

// inserted reports whether a statement has inserted a row.
func inserted(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}
