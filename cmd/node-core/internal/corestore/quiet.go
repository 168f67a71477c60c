package corestore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

const (
	// quietRest is how many bytes, as limits count them, a client may have left to be near its limit at
	// every pace: a client that moves nothing now carries as much in the minute before its next row, at
	// 4 Mbit/s. Such a client can have a grant before it is seen, on the nodes on which it may come up: a quiet
	// one. Each is of about all that is left, of up to twice as much after other nodes have moved bytes: a
	// client on one node is not ended before its limit, and not far behind. A client that comes up on several
	// nodes in one minute can move as much on each.
	quietRest = 32 << 20
	// quietFor is how long after a client's last row its quiet grants are good. They are not renewed: a
	// client that is gone for longer changes no documents, and has no grant in its first minute.
	quietFor = time.Hour
	// mostQuiet is how many quiet grants a node's document has at the most. On PostgreSQL, transactions that
	// run at the same time can each add the last one.
	mostQuiet = 100
	// mostQuietNodes is how many nodes a client may reach to have quiet grants on nodes where it was not
	// seen: each of these nodes gets another document.
	mostQuietNodes = 8
)

func isQuietRest(left int64) bool { return left > 0 && left <= quietRest }

// quietUntil returns until when a client's quiet grants are good.
func quietUntil(all []granted) time.Time {
	var last int64
	for _, g := range all {
		last = max(last, g.seen)
	}
	return time.UnixMilli(last).Add(quietFor)
}

// addQuiet adds rows without a grant for the nodes that a group reaches and on which the subscription
// was not seen, where they are few and have few quiet grants. It returns them.
func addQuiet(ctx context.Context, tx *sql.Tx, id, group int64) ([]granted, error) {
	reached, args := reachedBy([]int64{group})
	var few bool
	if err := tx.QueryRowContext(ctx, `SELECT count(*) <= ? FROM (SELECT 1 FROM nodes WHERE `+reached+` LIMIT ?) reached`,
		append(append([]any{mostQuietNodes}, args...), mostQuietNodes+1)...).Scan(&few); err != nil || !few {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `INSERT INTO grants (subscription_id, node_id, pace, seen_at, due_at, quiet)
		SELECT ?, id, 0, 0, 0, 1 FROM nodes WHERE `+reached+` AND NOT EXISTS (SELECT 1 FROM grants WHERE node_id = nodes.id AND quiet = 1 LIMIT 1 OFFSET ?)
		ORDER BY id ON CONFLICT DO NOTHING RETURNING node_id, (SELECT multiplier FROM nodes WHERE id = grants.node_id)`,
		append(append([]any{id}, args...), mostQuiet-1)...)
	added, err := collect(rows, err, func(r *sql.Rows) (g granted, err error) { return g, r.Scan(&g.node, &g.multiplier) })
	if err != nil {
		return nil, fmt.Errorf("give subscription %d grants where it was not seen: %w", id, err)
	}
	return added, nil
}

// markFull marks the rows that are not quiet and whose nodes have as many quiet grants as they may.
func markFull(ctx context.Context, tx *sql.Tx, all []granted) error {
	var nodes []int64
	for _, g := range all {
		if !g.quiet {
			nodes = append(nodes, g.node)
		}
	}
	in, args := inList(nodes)
	rows, err := tx.QueryContext(ctx, `SELECT id FROM nodes WHERE id IN `+in+` AND EXISTS (SELECT 1 FROM grants WHERE node_id = nodes.id AND quiet = 1 LIMIT 1 OFFSET ?)`, append(args, mostQuiet-1)...)
	full, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	if err != nil {
		return fmt.Errorf("read which nodes have quiet grants enough: %w", err)
	}
	for i := range all {
		all[i].full = slices.Contains(full, all[i].node)
	}
	return nil
}

// beQuiet gives the client a quiet grant of the bytes, or changes the one that it has where that is
// too little, or twice too much: each change is another document.
func (g *granted) beQuiet(bytes int64, now, until time.Time) {
	switch o := g.outstanding(now); {
	case !g.quiet || g.id == "" || g.isOver(now):
		g.quiet, g.id, g.moved, g.given = true, rand.Text(), 0, millis(now)
	case bytes <= o && o/2 <= bytes && g.expires >= millis(until.Add(-quietFor/2)):
		return
	}
	g.bytes, g.expires, g.changed = added(g.moved, bytes), millis(until), true
}
