package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
)

const (
	// SeenEvery is how often the times at which nodes were heard of are stored. A node whose heartbeats are held
	// for a minute speaks once a minute: that and SeenEvery together are less than OfflineAfter.
	SeenEvery = 20 * time.Second
	// seenAgain is when times that could not be stored are tried again.
	seenAgain = 5 * time.Second
	// seenPerStep is how many of them one transaction stores, so that others wait little.
	seenPerStep = 500
)

// quietBeats has the heartbeats that say nothing but that the node is alive. They are stored together:
// a transaction that waits for the disk, for each of them, would wear out the disk of a Core with
// ten thousand idle nodes. A crash loses the last seconds of these times and nothing else.
//
// mu is held while the map is read or changed, and never while the database is asked. storing is
// held while times are stored, so that close waits for it.
type quietBeats struct {
	mu      sync.Mutex
	at      map[int64]time.Time // by node
	timer   *time.Timer         // nil while nothing waits
	failure error               // of the timer; WatchNodes tells of it
	closed  bool
	storing sync.Mutex
}

// noteSeen keeps that a node was heard of, to be stored within SeenEvery.
func (s *Store) noteSeen(nodeID int64, now time.Time) {
	s.quiet.mu.Lock()
	defer s.quiet.mu.Unlock()
	if s.quiet.closed {
		return
	}
	if s.quiet.at == nil {
		s.quiet.at = map[int64]time.Time{}
	}
	s.quiet.at[nodeID] = now
	s.storeSeenAfter(SeenEvery)
}

// storeSeenAfter has what waits stored after a time, unless it is to be stored earlier. quiet.mu is held.
func (s *Store) storeSeenAfter(d time.Duration) {
	if s.quiet.timer != nil || s.quiet.closed {
		return
	}
	s.quiet.timer = time.AfterFunc(d, func() {
		if err := s.storeSeen(context.Background()); err != nil {
			s.quiet.mu.Lock()
			defer s.quiet.mu.Unlock()
			s.quiet.failure = err
		}
	})
}

// seenFailure returns an error that storing by itself has met, once.
func (s *Store) seenFailure() error {
	s.quiet.mu.Lock()
	defer s.quiet.mu.Unlock()
	err := s.quiet.failure
	s.quiet.failure = nil
	return err
}

// storeSeen stores when nodes were heard of. Times that it cannot store wait for the next try.
func (s *Store) storeSeen(ctx context.Context) error {
	s.quiet.storing.Lock()
	defer s.quiet.storing.Unlock()
	s.quiet.mu.Lock()
	at := s.quiet.at
	s.quiet.at, s.quiet.timer = nil, nil
	s.quiet.mu.Unlock()
	s.known.forgetAway()
	// A database that does not answer keeps each part waiting for a connection.
	ctx, cancel := context.WithTimeout(ctx, SeenEvery)
	defer cancel()
	var failed []error
	for part := range slices.Chunk(slices.Sorted(maps.Keys(at)), seenPerStep) {
		err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
			// An edit that raises the revisions of nodes locks the same rows in another order.
			if err := s.dialect.lockEdits(ctx, tx); err != nil {
				return err
			}
			times := make([]int64, len(part))
			for i, id := range part {
				times[i] = millis(at[id])
			}
			return s.dialect.setSeen(ctx, tx, part, times, millis(time.Now()))
		})
		if err != nil {
			failed = append(failed, fmt.Errorf("store when nodes %d to %d were heard of: %w", part[0], part[len(part)-1], err))
			s.keepSeen(part, at)
		}
	}
	return errors.Join(failed...)
}

// keepSeen puts times back that could not be stored.
func (s *Store) keepSeen(nodes []int64, at map[int64]time.Time) {
	s.quiet.mu.Lock()
	defer s.quiet.mu.Unlock()
	if s.quiet.at == nil {
		s.quiet.at = map[int64]time.Time{}
	}
	for _, id := range nodes {
		if s.quiet.at[id].Before(at[id]) {
			s.quiet.at[id] = at[id]
		}
	}
	s.storeSeenAfter(seenAgain)
}

// setSeen writes into a table of its own: a row of nodes is forty times as long. A time that is ahead of the clock
// is replaced: the clock has been set back since.
func (sqliteDialect) setSeen(ctx context.Context, tx *sql.Tx, nodes, at []int64, now int64) error {
	args := make([]any, 0, 2*len(nodes)+1)
	for i, id := range nodes {
		args = append(args, id, at[i])
	}
	_, err := tx.ExecContext(ctx, `WITH heard (id, at) AS (VALUES `+placeholders(2, len(nodes))+`)
		INSERT INTO node_seen (node_id, at) SELECT heard.id, heard.at FROM heard JOIN nodes ON nodes.id = heard.id
		WHERE nodes.last_seen_at < heard.at ON CONFLICT (node_id) DO UPDATE SET at = excluded.at WHERE node_seen.at < excluded.at OR node_seen.at > ?`, append(args, now)...)
	return err
}

// setSeen is one text for any number of nodes: a connection keeps a prepared statement for each text. Instances of
// earlier versions read the rows of nodes alone.
func (postgresDialect) setSeen(ctx context.Context, tx *sql.Tx, nodes, at []int64, now int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE nodes SET last_seen_at = heard.at FROM unnest(?, ?) heard (id, at)
		WHERE nodes.id = heard.id AND (nodes.last_seen_at < heard.at OR nodes.last_seen_at > ?)`, nodes, at, now)
	return err
}

// clockSlack is how far a stored time may be ahead of this host's clock: the clocks of instances differ.
const clockSlack = time.Minute

// boundSeen replaces the times of nodes that are ahead of the clock by the time of now. A clock that was ahead once
// would otherwise keep nodes online that are gone, and keep back their events, until that time has come.
func (s *Store) boundSeen(ctx context.Context, now time.Time) error {
	ahead, nowMillis := millis(now.Add(clockSlack)), millis(now)
	var any bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM nodes WHERE last_seen_at > ?1 OR told_at > ?1) OR EXISTS (SELECT 1 FROM node_seen WHERE at > ?1)`, ahead).Scan(&any)
	if err != nil || !any {
		return errorAbout(err, "look for times ahead of the clock")
	}
	return s.retried(ctx, s.write, func(tx *sql.Tx) error {
		if err := s.dialect.lockEdits(ctx, tx); err != nil {
			return err
		}
		for _, text := range []string{
			`UPDATE nodes SET last_seen_at = CASE WHEN last_seen_at > ?1 THEN ?2 ELSE last_seen_at END, told_at = min(told_at, ?2) WHERE last_seen_at > ?1 OR told_at > ?1`,
			`UPDATE node_seen SET at = ?2 WHERE at > ?1`,
		} {
			if _, err := tx.ExecContext(ctx, text, ahead, nowMillis); err != nil {
				return fmt.Errorf("bound times ahead of the clock: %w", err)
			}
		}
		return nil
	})
}

// closeSeen stores what waits, and takes nothing more.
func (s *Store) closeSeen() error {
	s.quiet.mu.Lock()
	s.quiet.closed = true
	if s.quiet.timer != nil {
		s.quiet.timer.Stop()
	}
	s.quiet.mu.Unlock()
	return s.storeSeen(context.Background())
}

// QuietBeat answers a heartbeat that changes nothing but the time at which the node was heard of,
// without a write, and mostly without a question to the database. quiet is false for any other heartbeat.
func (s *Store) QuietBeat(ctx context.Context, nodeID int64, r wire.HeartbeatRequest, from Daemon) (b Beat, quiet bool, err error) {
	now := time.Now()
	if b, known := s.known.beat(nodeID, r, from); known {
		s.noteSeen(nodeID, now)
		return b, true, nil
	}
	moment := s.known.moment()
	var seed string
	var given int64
	err = s.read.QueryRowContext(ctx, `SELECT `+wanted+`, CASE WHEN document_revision = `+wanted+` THEN document_etag ELSE '' END, next_key_seed,
			CASE WHEN document_revision = 0 THEN `+wanted+` ELSE document_revision END
		FROM nodes WHERE id = ?1 AND last_seen_at IS NOT NULL AND status = 'online' AND told = 'online'
			AND (?2 = '' OR ip = ?2) AND (?3 = '' OR boot = ?3) AND agent = ?5
			AND applied_revision IS NOT DISTINCT FROM coalesce(?4, applied_revision)
			AND (`+wanted+` IS DISTINCT FROM ?4 OR sync_status = 'synced'
				AND NOT EXISTS (SELECT 1 FROM node_protocols WHERE node_id = ?1 AND status = 'failed')
				AND NOT EXISTS (SELECT 1 FROM node_refusals WHERE node_id = ?1))`,
		nodeID, r.IP, from.Boot, r.Revision, from.Agent).Scan(&b.Revision, &b.ETag, &seed, &given)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && r.Revision != nil && *r.Revision > given:
		return Beat{}, false, nil
	case err != nil:
		return b, false, err
	}
	if seed != "" {
		b.NextKey = s.keys.nextKey(nodeID, seed)
	}
	s.known.keepBeat(nodeID, moment, r, from, b)
	s.noteSeen(nodeID, now)
	return b, true, nil
}
