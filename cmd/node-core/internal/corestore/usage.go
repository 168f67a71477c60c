package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

const (
	// A row is flagged where its minute is further away from the time at which Core receives
	// it: the node's clock was wrong, or the row waited longer than an agent keeps a row per
	// minute.
	farFuture = 10 * time.Minute
	farPast   = 45 * 24 * time.Hour
)

// AddUsage stores a batch of usage rows and adds them to the counters of their subscriptions.
// Bytes of a row that exists already are added to it: an agent may send a minute in several
// parts. Rows of users, subscriptions and inbounds that were removed meanwhile are stored too.
// key is the batch's Idempotency-Key or empty. strange counts the rows that are left out,
// since their ids were never the node's: see withoutStrange.
func (s *Store) AddUsage(ctx context.Context, nodeID int64, key string, entries []wire.UsageEntry) (strange int, err error) {
	now := time.Now()
	defer s.expiries.wake() // a first use sets when a subscription expires
	return strange, s.applyOnce(ctx, nodeID, wire.PathUsage, key, func(tx *sql.Tx) error {
		own, err := withoutStrange(ctx, tx, nodeID, entries, now)
		if err != nil {
			return err
		}
		strange = len(entries) - len(own)
		s.moved.Store(tx, movedBy(nodeID, own))
		if err := s.dialect.insertUsage(ctx, tx, nodeID, withoutRepeats(own), now); err != nil {
			return fmt.Errorf("store usage: %w", err)
		}
		if err := noteFirstUse(ctx, tx, own, now); err != nil {
			return err
		}
		return s.addToSubscriptions(ctx, tx, own)
	})
}

// withoutRepeats returns the rows with those of one minute, user, subscription and inbound in one:
// PostgreSQL changes a row only once in a statement.
func withoutRepeats(entries []wire.UsageEntry) []wire.UsageEntry {
	type key struct{ at, user, subscription, protocol int64 }
	places := make(map[key]int, len(entries))
	merged := make([]wire.UsageEntry, 0, len(entries))
	for _, e := range entries {
		k := key{millis(e.RecordedAt), e.UserID, subscriptionID(e), e.NodeProtocolID}
		if i, is := places[k]; is {
			merged[i].BytesUp, merged[i].BytesDown = added(merged[i].BytesUp, e.BytesUp), added(merged[i].BytesDown, e.BytesDown)
			continue
		}
		places[k] = len(merged)
		merged = append(merged, e)
	}
	return merged
}

// subscriptionID returns the id as it is stored: 0 for none.
func subscriptionID(e wire.UsageEntry) int64 {
	if e.SubscriptionID == nil {
		return 0
	}
	return *e.SubscriptionID
}

// rowsPerStatement is how many rows one INSERT has. BenchmarkUsage is no faster with more.
const rowsPerStatement = 250

func (sqliteDialect) insertUsage(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time) error {
	for some := range slices.Chunk(entries, rowsPerStatement) {
		if err := insertRows(ctx, tx, nodeID, some, now); err != nil {
			return err
		}
	}
	return nil
}

// isFlagged reports whether a row's time is far from when Core received it.
func isFlagged(e wire.UsageEntry, now time.Time) bool {
	return e.RecordedAt.After(now.Add(farFuture)) || e.RecordedAt.Before(now.Add(-farPast))
}

func insertRows(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, now time.Time) error {
	args := make([]any, 0, 8*len(entries))
	for _, e := range entries {
		args = append(args, nodeID, millis(e.RecordedAt), e.UserID, subscriptionID(e), e.NodeProtocolID, e.BytesUp, e.BytesDown, isFlagged(e, now))
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO usage (node_id, recorded_at, user_id, subscription_id, node_protocol_id, bytes_up, bytes_down, flagged)
		VALUES `+placeholders(8, len(entries))+` `+addToUsage, args...)
	return err
}

// addToUsage is the end of an INSERT into usage: what a row that exists has is added to it.
var addToUsage = `ON CONFLICT (node_id, recorded_at, user_id, subscription_id, node_protocol_id) DO UPDATE SET
	bytes_up = ` + plus("usage.bytes_up", "excluded.bytes_up") + `, bytes_down = ` + plus("usage.bytes_down", "excluded.bytes_down") + `,
	flagged = max(usage.flagged, excluded.flagged)`

// placeholders returns the VALUES of an INSERT: "(?,?),(?,?)" for two rows of two columns.
func placeholders(columns, rows int) string {
	row := "(?" + strings.Repeat(",?", columns-1) + ")"
	return row + strings.Repeat(","+row, rows-1)
}

// subscriptionOf is a subscription and the user whose it is. A row that names another user is
// stored, and no counter gets it.
type subscriptionOf struct{ id, user int64 }

// subscriptionSum is what a batch adds to the counters of a subscription.
type subscriptionSum struct {
	subscriptionOf
	up, down int64
}

func (s *Store) addToSubscriptions(ctx context.Context, tx *sql.Tx, entries []wire.UsageEntry) error {
	sums := map[subscriptionOf]subscriptionSum{}
	for _, e := range entries {
		if e.SubscriptionID != nil {
			of := subscriptionOf{*e.SubscriptionID, e.UserID}
			sum := sums[of]
			sums[of] = subscriptionSum{of, added(sum.up, e.BytesUp), added(sum.down, e.BytesDown)}
		}
	}
	if len(sums) == 0 {
		return nil
	}
	order := func(a, b subscriptionSum) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.user, b.user)) }
	if err := s.dialect.addSums(ctx, tx, slices.SortedFunc(maps.Values(sums), order)); err != nil {
		return fmt.Errorf("add to subscriptions: %w", err)
	}
	return nil
}

func (sqliteDialect) addSums(ctx context.Context, tx *sql.Tx, sums []subscriptionSum) error {
	update, err := tx.PrepareContext(ctx, `UPDATE subscriptions SET bytes_up = `+plus("bytes_up", "?1")+`,
		bytes_down = `+plus("bytes_down", "?2")+` WHERE id = ?3 AND user_id = ?4`)
	if err != nil {
		return err
	}
	defer update.Close()
	for _, sum := range sums {
		if _, err := update.ExecContext(ctx, sum.up, sum.down, sum.id, sum.user); err != nil {
			return fmt.Errorf("subscription %d: %w", sum.id, err)
		}
	}
	return nil
}

// UsageRow is one stored usage row and the node that sent it.
type UsageRow = coreapi.UsageRow

// Usage returns the newest usage rows, at most limit, the newest first.
func (s *Store) Usage(ctx context.Context, limit int) ([]UsageRow, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT node_id, user_id, nullif(subscription_id, 0), node_protocol_id, bytes_up, bytes_down, recorded_at, flagged
		FROM usage ORDER BY recorded_at DESC, node_id, user_id LIMIT ?`, limit)
	return collect(rows, err, func(r *sql.Rows) (UsageRow, error) {
		var row UsageRow
		var at int64
		err := r.Scan(&row.NodeID, &row.UserID, &row.SubscriptionID, &row.NodeProtocolID, &row.BytesUp, &row.BytesDown, &at, &row.Flagged)
		row.RecordedAt = time.UnixMilli(at).UTC()
		return row, err
	})
}
