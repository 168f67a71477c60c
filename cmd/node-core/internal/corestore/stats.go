package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// Stats are numbers about the whole of Core, for metrics. None of them is about one user.
type Stats struct {
	NodesByState          map[string]int64 // online, offline, degraded, error, pending
	SubscriptionsByStatus map[string]int64
	Users                 int64
	Online                int64              // sessions of clients
	Traffic               map[string]Traffic // by the node's name, since this instance began
	DatabaseBytes         int64
}

// Traffic is how many bytes the rows of a node had.
type Traffic struct{ Up, Down int64 }

// nodeTraffic adds up the rows of a node.
type nodeTraffic struct{ up, down atomic.Int64 }

// movedBytes is what a batch of a node had.
type movedBytes struct {
	node     int64
	up, down int64
}

func movedBy(nodeID int64, entries []wire.UsageEntry) movedBytes {
	m := movedBytes{node: nodeID}
	for _, e := range entries {
		m.up, m.down = added(m.up, e.BytesUp), added(m.down, e.BytesDown)
	}
	return m
}

// countTraffic adds what a batch had, after its commit.
func (s *Store) countTraffic(m movedBytes) {
	counted, _ := s.traffic.LoadOrStore(m.node, &nodeTraffic{})
	sum := counted.(*nodeTraffic)
	sum.up.Add(m.up)
	sum.down.Add(m.down)
}

// Stats reads the numbers.
func (s *Store) Stats(ctx context.Context) (st Stats, err error) {
	if st.NodesByState, err = s.countBy(ctx, `SELECT CASE WHEN last_seen_at IS NULL THEN 'pending' WHEN `+lastSeen+` < ? THEN 'offline' ELSE status END AS state, count(*) FROM nodes GROUP BY 1`,
		millis(time.Now().Add(-OfflineAfter))); err != nil {
		return st, fmt.Errorf("count the nodes: %w", err)
	}
	if st.SubscriptionsByStatus, err = s.countBy(ctx, `SELECT status, count(*) FROM subscriptions GROUP BY status`); err != nil {
		return st, fmt.Errorf("count the subscriptions: %w", err)
	}
	if err := s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM online_sessions)`).Scan(&st.Users, &st.Online); err != nil {
		return st, fmt.Errorf("count the users: %w", err)
	}
	if st.DatabaseBytes, err = s.dialect.size(ctx, s.read); err != nil {
		return st, fmt.Errorf("measure the database: %w", err)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT id, name FROM nodes`)
	st.Traffic = map[string]Traffic{}
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id int64
		var name string
		err := r.Scan(&id, &name)
		if counted, is := s.traffic.Load(id); is {
			sum := counted.(*nodeTraffic)
			st.Traffic[name] = Traffic{sum.up.Load(), sum.down.Load()}
		}
		return struct{}{}, err
	})
	return st, err
}

// CountNodes returns how many nodes there are, and how many of them were heard of since a time.
func (s *Store) CountNodes(ctx context.Context, since time.Time) (all, seen int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*), count(CASE WHEN `+lastSeen+` >= ? THEN 1 END) FROM nodes`, millis(since)).Scan(&all, &seen)
	return all, seen, err
}

func (s *Store) countBy(ctx context.Context, query string, args ...any) (map[string]int64, error) {
	counts := map[string]int64{}
	rows, err := s.read.QueryContext(ctx, query, args...)
	err = collectMap(rows, err, counts)
	return counts, err
}

func (sqliteDialect) size(ctx context.Context, db *sql.DB) (bytes int64, err error) {
	return bytes, db.QueryRowContext(ctx, `SELECT c.page_count * s.page_size FROM pragma_page_count() c, pragma_page_size() s`).Scan(&bytes)
}

func (postgresDialect) size(ctx context.Context, db *sql.DB) (bytes int64, err error) {
	return bytes, db.QueryRowContext(ctx, `SELECT pg_database_size(current_database())`).Scan(&bytes)
}

// TellFailedBackup writes an event that a scheduled backup could not be made, unless the last one since
// a time tells the same already.
func (s *Store) TellFailedBackup(ctx context.Context, reason string, since time.Time) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		var told bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM events WHERE kind = ? AND at >= ?)`, string(coreapi.EventBackupFailed), millis(since)).Scan(&told); err != nil || told {
			return err
		}
		return s.event(ctx, tx, Event{Kind: coreapi.EventBackupFailed}, struct {
			Error string `json:"error"`
		}{reason})
	})
}
