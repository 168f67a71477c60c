package corestore

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// errDuplicateBatch ends a transaction whose batch was taken before.
var errDuplicateBatch = errors.New("the batch was taken before")

// applyOnce runs f in a transaction, unless the node sent a batch with that key
// before: then nothing changes, and the answer is the same.
func (s *Store) applyOnce(ctx context.Context, nodeID int64, route, key string, f func(tx *sql.Tx) error) error {
	err := s.inTransaction(ctx, func(tx *sql.Tx) error {
		if key != "" {
			result, err := tx.ExecContext(ctx, `INSERT INTO idempotency_keys (node_id, key, route, created_at)
				VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`, nodeID, key, route, millis(time.Now()))
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
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
