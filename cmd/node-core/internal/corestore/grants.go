package corestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"nodeagent/coreclient/wire"
)

const (
	// nearPaces says which subscriptions are near their limits: those with less left than so many
	// times what their last batch of rows has moved. Rows come by the minute and a minute late, and
	// two nodes can move as much as each other.
	nearPaces = 8
	// farPaces is how many minutes of all nodes have to be left for a subscription's grants to end.
	farPaces = 16
	// grantLife is how long a grant is good that Core does not renew. Core renews one of a client
	// that moves bytes when half of it is over.
	grantLife = 5 * time.Minute
	// seenFor is how long after its last row a client counts as being on a node.
	seenFor = 3 * time.Minute
	// rowsLate is how long after the end of a grant its last rows may come from a node that reaches
	// Core.
	rowsLate = 90 * time.Second
	// grantLeaves is how long before its end an idle client's grant leaves the node's document: at the end
	// the node would end the client's connections, and a document can come some seconds late.
	grantLeaves = 30 * time.Second
	// grantsPerStep is how many subscriptions' grants one transaction divides.
	grantsPerStep = 200
)

// Grant is what a client may still move on one node, up and down together, from when the node first
// sees the id. The same id comes again with more bytes and a later end.
type Grant struct {
	ID        string    `json:"id"`
	Bytes     int64     `json:"bytes"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// granted is a row of the table grants.
type granted struct {
	node, multiplier     int64
	pace, bytes, moved   int64
	id                   string
	seen, given, expires int64 // Unix milliseconds
	quiet                bool
	full                 bool // the node has mostQuiet quiet grants
	changed, gone        bool
}

// outstanding returns how many bytes of the grant the node may still report, true ones.
func (g granted) outstanding(now time.Time) int64 {
	if g.id == "" || g.expires+rowsLate.Milliseconds() <= millis(now) {
		return 0
	}
	return max(0, g.bytes-g.moved)
}

// isOver reports whether the document has the grant no more, see Grants.
func (g granted) isOver(now time.Time) bool { return g.expires <= millis(now.Add(grantLeaves)) }

// isSeen reports whether the client counts as being on the node: its rows say so, or it was ended
// there because its grant is used up.
func (g granted) isSeen(now time.Time) bool {
	return g.seen >= millis(now.Add(-seenFor)) || g.id != "" && g.moved >= g.bytes && !g.isOver(now)
}

// share returns the part of a whole that belongs to a weight among all weights, rounded down.
func share(whole, weight, all int64) int64 {
	switch {
	case all <= 0:
		return 0
	case weight >= all:
		return whole
	}
	high, low := bits.Mul64(uint64(whole), uint64(weight))
	part, _ := bits.Div64(high, low, uint64(all)) // weight < all, so that high < all
	return int64(part)
}

// unweighed returns how many bytes count as no more than the given number with a multiplier in
// thousandths, which is not 0.
func unweighed(counted, multiplier int64) int64 {
	high, low := bits.Mul64(uint64(counted), wholeByte)
	if high >= uint64(multiplier) {
		return maxSum
	}
	part, _ := bits.Div64(high, low, uint64(multiplier))
	return int64(min(part, maxSum))
}

// noteNear writes down what the rows of a batch say of clients that are near their limits: those
// that have grants on the node, and those that have come near. It makes their grants due.
func noteNear(ctx context.Context, tx *sql.Tx, nodeID int64, entries []wire.UsageEntry, over []overLimit, now time.Time) (due bool, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT subscription_id, grant_id, CASE WHEN grant_id = '' THEN ? ELSE given_at END FROM grants WHERE node_id = ?`, int64(maxSum), nodeID)
	given, names := map[int64]int64{}, map[int64]string{}
	if _, err := collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id, at int64
		var name string
		err := r.Scan(&id, &name, &at)
		given[id], names[id] = at, name
		return struct{}{}, err
	}); err != nil {
		return false, fmt.Errorf("read the grants of node %d: %w", nodeID, err)
	}
	for _, o := range over {
		if _, has := given[o.id]; !has && !o.reached {
			given[o.id] = maxSum
		}
	}
	if len(given) == 0 {
		return false, nil
	}
	type moved struct{ bytes, granted, first, last int64 }
	sums := map[int64]moved{}
	for _, e := range entries {
		id := subscriptionID(e)
		at, of := given[id]
		if !of {
			continue
		}
		m, bytes, minute := sums[id], added(e.BytesUp, e.BytesDown), millis(e.RecordedAt)
		if m.first == 0 || minute < m.first {
			m.first = minute
		}
		m.bytes, m.last = added(m.bytes, bytes), max(m.last, minute)
		// The minute in which the grant was given counts: the node may have counted a part of it.
		if minute >= at-at%minuteMillis {
			m.granted = added(m.granted, bytes)
		}
		sums[id] = m
	}
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		m := sums[id]
		// On PostgreSQL another transaction can have given another grant since the SELECT.
		pace := m.bytes / ((m.last-m.first)/minuteMillis + 1)
		if _, err := tx.ExecContext(ctx, `INSERT INTO grants (subscription_id, node_id, pace, seen_at, due_at) SELECT id, ?2, ?3, ?4, 0 FROM subscriptions WHERE id = ?1
			ON CONFLICT (subscription_id, node_id) DO UPDATE SET pace = excluded.pace, seen_at = max(grants.seen_at, excluded.seen_at), due_at = 0,
			moved = CASE WHEN grants.grant_id = ?6 THEN `+plus("grants.moved", "?5")+` ELSE grants.moved END`, id, nodeID, pace, min(m.last, millis(now)), m.granted, names[id]); err != nil {
			return false, fmt.Errorf("note what subscription %d moves: %w", id, err)
		}
	}
	ids := make([]any, len(over))
	for i, o := range over {
		ids[i] = o.id
	}
	return len(sums) > 0, grantsDue(ctx, tx, ids)
}

const minuteMillis = int64(time.Minute / time.Millisecond)

// grantsDue makes the grants of subscriptions due on all nodes.
func grantsDue(ctx context.Context, tx *sql.Tx, ids []any) error {
	for ids := range chunks(ids) {
		if _, err := tx.ExecContext(ctx, `UPDATE grants SET due_at = 0 WHERE subscription_id IN `+placeholders(len(ids), 1), ids...); err != nil {
			return err
		}
	}
	return nil
}

// divideGrants divides what is left of limits among the nodes on which their subscriptions are
// seen, for the subscriptions that are due.
func (s *Store) divideGrants(ctx context.Context, tx *sql.Tx, now time.Time) (more bool, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT DISTINCT subscription_id FROM grants WHERE due_at <= ? ORDER BY subscription_id LIMIT ?`, millis(now), grantsPerStep)
	ids, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	if err != nil {
		return false, err
	}
	var changed []int64
	for _, id := range ids { // in the order in which batches lock them
		nodes, err := divideGrantsOf(ctx, tx, id, now)
		if err != nil {
			return false, fmt.Errorf("divide what is left of subscription %d: %w", id, err)
		}
		changed = append(changed, nodes...)
	}
	return len(ids) == grantsPerStep, noteDue(ctx, tx, due{nodes: changed})
}

// divideGrantsOf returns the nodes whose documents have another grant of the subscription.
func divideGrantsOf(ctx context.Context, tx *sql.Tx, id int64, now time.Time) (nodes []int64, err error) {
	// The UPDATE locks the rows; due_at is set to what it is below.
	rows, err := tx.QueryContext(ctx, `UPDATE grants SET due_at = due_at WHERE subscription_id = ? RETURNING node_id, pace, seen_at, grant_id, bytes, moved, given_at, expires_at, quiet,
		(SELECT multiplier FROM nodes WHERE id = grants.node_id)`, id)
	all, err := collect(rows, err, func(r *sql.Rows) (g granted, err error) {
		return g, r.Scan(&g.node, &g.pace, &g.seen, &g.id, &g.bytes, &g.moved, &g.given, &g.expires, &g.quiet, &g.multiplier)
	})
	if err != nil {
		return nil, err
	}
	var limit, extra, used, group int64
	var status string
	if err := tx.QueryRowContext(ctx, `SELECT limit_bytes, extra_bytes, used_bytes, status, group_id FROM subscriptions WHERE id = ?`, id).Scan(&limit, &extra, &used, &status, &group); err != nil {
		return nil, err
	}
	if !served(status) || limit == 0 {
		limit, extra = maxSum, 0 // no grants
	}
	left := max(0, added(limit, extra)-used)
	if isQuietRest(left) && quietUntil(all).After(now.Add(grantLeaves)) {
		if err := markFull(ctx, tx, all); err != nil {
			return nil, err
		}
		more, err := addQuiet(ctx, tx, id, group)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	slices.SortFunc(all, func(a, b granted) int { return cmp.Compare(a.node, b.node) })
	divide(all, left, now)
	for _, g := range all {
		if g.changed {
			nodes = append(nodes, g.node)
		}
		if g.gone {
			_, err = tx.ExecContext(ctx, `DELETE FROM grants WHERE subscription_id = ? AND node_id = ?`, id, g.node)
		} else {
			_, err = tx.ExecContext(ctx, `UPDATE grants SET grant_id = ?, bytes = ?, moved = ?, given_at = ?, expires_at = ?, quiet = ?, due_at = ? WHERE subscription_id = ? AND node_id = ?`,
				g.id, g.bytes, g.moved, g.given, g.expires, g.quiet, g.next(now), id, g.node)
		}
		if err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// next returns when the grant is to be looked at again where no row comes, and no other grant of the client
// is due: when half of it is over to renew it, grantLeaves before its end to take it out of the document,
// and when its last rows are late to forget it.
func (g granted) next(now time.Time) int64 {
	next := g.expires - grantLeaves.Milliseconds()
	if g.isOver(now) {
		next = g.expires + rowsLate.Milliseconds()
	} else if renew := g.expires - grantLife.Milliseconds()/2; g.isSeen(now) && renew > millis(now) {
		next = renew
	}
	return max(next, millis(now.Add(time.Second)))
}

// divide gives the nodes on which a client is seen what is left of its limit, by how much it moves
// on each. left is what the limit lacks, as the limit counts bytes. It never gives more than
// that, less what the nodes may still report of the grants that they have. Quiet grants come on top: see
// quietRest.
func divide(all []granted, left int64, now time.Time) {
	var paces, weights, out int64
	for i := range all {
		g := &all[i]
		seen := g.isSeen(now)
		if seen && g.quiet { // the client has come up here: it takes part in what is divided
			g.quiet, g.bytes, g.expires, g.changed = false, g.moved, millis(now.Add(grantLife)), true
		}
		if seen {
			p, _ := weighed(g.pace, g.multiplier)
			paces, weights = added(paces, p), added(weights, max(p, 1))
		}
		if g.quiet {
			continue
		}
		o, rest := weighed(g.outstanding(now), g.multiplier)
		out = added(out, o)
		if rest > 0 {
			out = added(out, 1)
		}
	}
	quiet := isQuietRest(left)
	far := left/farPaces > paces && !quiet
	free := max(0, left-out)
	until := quietUntil(all)
	if free > paces {
		free -= free / 4 // for a node on which the client comes up next
	}
	for i := range all {
		g := &all[i]
		seen := g.isSeen(now)
		switch {
		case far && (paces > 0 || left == maxSum), g.multiplier == 0:
			g.gone, g.changed = true, g.id != ""
		case seen:
			p, _ := weighed(g.pace, g.multiplier)
			g.renew(unweighed(share(free, max(p, 1), weights), g.multiplier), now)
		case quiet && until.After(now.Add(grantLeaves)) && (g.quiet || g.isOver(now) && !g.full):
			g.beQuiet(unweighed(left, g.multiplier), now, until)
		case g.quiet, g.expires+rowsLate.Milliseconds() <= millis(now):
			g.gone, g.changed = true, g.id != ""
		case g.id != "" && g.isOver(now):
			g.changed = true // the document has it no more, see Grants
		}
	}
}

// renew gives the client more bytes on the node, where it needs them or its grant comes to its end.
func (g *granted) renew(give int64, now time.Time) {
	o := g.outstanding(now)
	ends := g.expires-millis(now) < grantLife.Milliseconds()/2
	pace := max(g.pace, 1)
	more := o < added(pace, pace) && give > o/2
	over := g.id == "" || g.isOver(now)
	if !over && !more && (!ends || o == 0) {
		return
	}
	if over { // also with 0 bytes: a client without a grant has no bound
		g.id, g.bytes, g.moved, g.given = rand.Text(), o, 0, millis(now)
	}
	g.bytes, g.expires, g.changed = added(g.bytes, give), millis(now.Add(grantLife)), true
}

// Grants returns the grants of a node's document by subscription. It leaves out a grant that ends within
// grantLeaves: the node would refuse the client under it, and no row of a refused client says that it is back.
func (s *Store) Grants(ctx context.Context, nodeID int64) (map[int64]*Grant, error) {
	grants := map[int64]*Grant{}
	rows, err := s.read.QueryContext(ctx, `SELECT subscription_id, grant_id, bytes, expires_at FROM grants WHERE node_id = ? AND grant_id != '' AND expires_at > ?`, nodeID, millis(s.clock().Add(grantLeaves)))
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id, expires int64
		var g Grant
		err := r.Scan(&id, &g.ID, &g.Bytes, &expires)
		g.ExpiresAt = time.UnixMilli(expires).UTC()
		grants[id] = &g
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the grants of node %d: %w", nodeID, err)
	}
	return grants, nil
}
