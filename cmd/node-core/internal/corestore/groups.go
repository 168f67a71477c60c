package corestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"nodeagent/coreapi"
)

// DefaultGroup is the id of the group that subscriptions are in unless an operator says
// another. It reaches everything until it is edited, and it can't be removed.
const DefaultGroup = coreapi.DefaultGroup

// ErrInUse means that a row can't be removed while others refer to it.
var ErrInUse = errors.New("it is in use")

// Group says which subscriptions are on which inbounds: the subscriptions that are in it, on
// the inbounds that it reaches.
type Group struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Note       string `json:"note"`
	Everything bool   `json:"everything"` // it reaches all inbounds of all nodes
	// Nodes are the ids of the nodes of which it reaches all inbounds, also later ones, and
	// Protocols the ids of single inbounds. With Everything both are kept, and do not count.
	Nodes         []int64   `json:"nodes"`
	Protocols     []int64   `json:"protocols"`
	Subscriptions int64     `json:"subscriptions"` // how many are in it
	CreatedAt     time.Time `json:"createdAt"`     // UTC
}

// Reach says which groups are on which inbounds of one node.
type Reach struct {
	whole  map[int64]bool    // groups that reach all inbounds of the node
	single map[[2]int64]bool // by group and inbound
}

// Has reports whether the subscriptions of a group are on an inbound of the node.
func (r Reach) Has(group, protocol int64) bool {
	return r.whole[group] || r.single[[2]int64{group, protocol}]
}

// Mapped returns the groups that are on any inbound of the node, in their order.
func (r Reach) Mapped() []int64 {
	groups := map[int64]bool{}
	for id := range r.whole {
		groups[id] = true
	}
	for at := range r.single {
		groups[at[0]] = true
	}
	return slices.Sorted(maps.Keys(groups))
}

// Everywhere is the reach of the given groups over all inbounds of a node.
func Everywhere(groups ...int64) Reach {
	r := Reach{whole: map[int64]bool{}}
	for _, id := range groups {
		r.whole[id] = true
	}
	return r
}

// reachOf reads which groups are on which inbounds of the node.
func (s *Store) reachOf(ctx context.Context, nodeID int64) (Reach, error) {
	r := Reach{map[int64]bool{}, map[[2]int64]bool{}}
	rows, err := s.read.QueryContext(ctx, `SELECT id, 0 FROM access_groups WHERE everything = 1
		UNION ALL SELECT group_id, 0 FROM group_nodes WHERE node_id = ?1
		UNION ALL SELECT g.group_id, g.protocol_id FROM group_protocols g JOIN node_protocols p ON p.id = g.protocol_id WHERE p.node_id = ?1`, nodeID)
	_, err = collect(rows, err, func(rows *sql.Rows) (struct{}, error) {
		var group, protocol int64
		err := rows.Scan(&group, &protocol)
		if protocol == 0 {
			r.whole[group] = true
		} else {
			r.single[[2]int64{group, protocol}] = true
		}
		return struct{}{}, err
	})
	return r, err
}

// raiseReached raises the revision of the nodes that any of the groups reaches, and returns
// their ids.
func (s *Store) raiseReached(ctx context.Context, tx *sql.Tx, groups ...int64) ([]int64, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	reached, args := reachedBy(groups)
	return s.dialect.raiseClients(ctx, tx, groups, func() ([]int64, error) {
		rows, err := tx.QueryContext(ctx, `UPDATE nodes SET revision = max(`+wanted+` + 1, ?),
			sync_status = CASE WHEN registered_at IS NULL THEN sync_status ELSE 'pending' END
			WHERE `+reached+` RETURNING id`, append([]any{millis(time.Now())}, args...)...)
		return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	})
}

// raiseClients raises all nodes by one row where a group reaches everything: to write a row for each of ten
// thousand nodes takes 80 ms, and 5 MB of the disk. The row is later than every revision of before.
func (sqliteDialect) raiseClients(ctx context.Context, tx *sql.Tx, groups []int64, single func() ([]int64, error)) ([]int64, error) {
	in, args := inList(groups)
	var everything bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM access_groups WHERE everything = 1 AND id IN `+in+`)`, args...).Scan(&everything); err != nil || !everything {
		if err != nil {
			return nil, fmt.Errorf("look for groups that reach everything: %w", err)
		}
		return single()
	}
	// One row of the answer: to read ten thousand takes as long as all the rest.
	var ids sql.NullString
	var latest sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT group_concat(id), max(revision) FROM nodes`).Scan(&ids, &latest); err != nil {
		return nil, fmt.Errorf("read the nodes: %w", err)
	}
	var nodes []int64
	for text := range strings.SplitSeq(ids.String, ",") {
		if text == "" { // there are no nodes
			break
		}
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the nodes: %w", err)
		}
		nodes = append(nodes, id)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE all_nodes SET revision = max(revision + 1, ?, ?)`, latest.Int64+1, millis(time.Now())); err != nil {
		return nil, fmt.Errorf("raise the revision of all nodes: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `UPDATE nodes SET sync_status = 'pending' WHERE sync_status = 'failed' AND registered_at IS NOT NULL`); err != nil {
		return nil, fmt.Errorf("mark the nodes that have failed: %w", err)
	}
	return nodes, nil
}

// raiseClients raises each node by itself: other instances, which can be of another version, are told of each.
func (postgresDialect) raiseClients(_ context.Context, _ *sql.Tx, _ []int64, single func() ([]int64, error)) ([]int64, error) {
	return single()
}

// reachedBy returns a condition on rows of nodes: that one of the groups reaches them.
func reachedBy(groups []int64) (condition string, args []any) {
	in, ids := inList(groups)
	return `(EXISTS (SELECT 1 FROM access_groups WHERE everything = 1 AND id IN ` + in + `)
		OR id IN (SELECT node_id FROM group_nodes WHERE group_id IN ` + in + `)
		OR id IN (SELECT p.node_id FROM group_protocols g JOIN node_protocols p ON p.id = g.protocol_id WHERE g.group_id IN ` + in + `))`,
		slices.Concat(ids, ids, ids)
}

// inList returns what stands behind IN for the ids, each once.
func inList(ids []int64) (list string, args []any) {
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		args = append(args, id)
	}
	if len(args) == 0 {
		return "(0)", nil
	}
	return placeholders(len(args), 1), args
}

// AddGroup adds a group; ErrExists if another one has the name.
func (s *Store) AddGroup(ctx context.Context, g Group) (Group, error) {
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		g, err = insertGroup(ctx, tx, g)
		return err
	})
	return g, err
}

func insertGroup(ctx context.Context, tx *sql.Tx, g Group) (_ Group, err error) {
	if g.ID, err = nextID(ctx, tx, "access_groups"); err != nil {
		return g, err
	}
	g.CreatedAt = stored(time.Now())
	added, err := tx.ExecContext(ctx, `INSERT INTO access_groups (id, name, note, everything, created_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		g.ID, g.Name, g.Note, g.Everything, millis(g.CreatedAt))
	if err != nil {
		return g, err
	}
	if n, err := added.RowsAffected(); err != nil {
		return g, err
	} else if n == 0 {
		return g, fmt.Errorf("group %q: %w", g.Name, ErrExists)
	}
	return g, storeReach(ctx, tx, g)
}

// storeReach stores the nodes and inbounds of a group.
func storeReach(ctx context.Context, tx *sql.Tx, g Group) error {
	for _, statement := range []string{`DELETE FROM group_nodes WHERE group_id = ?`, `DELETE FROM group_protocols WHERE group_id = ?`} {
		if _, err := tx.ExecContext(ctx, statement, g.ID); err != nil {
			return err
		}
	}
	for _, id := range g.Nodes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO group_nodes (group_id, node_id) VALUES (?, ?) ON CONFLICT DO NOTHING`, g.ID, id); err != nil {
			return fmt.Errorf("store node %d of the group: %w", id, err)
		}
	}
	for _, id := range g.Protocols {
		if _, err := tx.ExecContext(ctx, `INSERT INTO group_protocols (group_id, protocol_id) VALUES (?, ?) ON CONFLICT DO NOTHING`, g.ID, id); err != nil {
			return fmt.Errorf("store protocol %d of the group: %w", id, err)
		}
	}
	// No revision is raised where nobody in the group is let in, and yet clients will be elsewhere.
	_, err := tx.ExecContext(ctx, `UPDATE nodes SET layout = layout + 1`)
	return err
}

// EditGroup changes a group and returns it. It raises the revision of the nodes on which that
// lets somebody in or out, and returns them.
func (s *Store) EditGroup(ctx context.Context, nameOrID string, edit func(*Group) error) (g Group, nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		before, err := group(ctx, tx, nameOrID)
		if err != nil {
			return err
		}
		g = before
		g.Nodes, g.Protocols = slices.Clone(before.Nodes), slices.Clone(before.Protocols)
		if err := edit(&g); err != nil {
			return err
		}
		if err := nameIsFree(ctx, tx, "access_groups", g.Name, g.ID); err != nil {
			return fmt.Errorf("group %q: %w", g.Name, err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE access_groups SET name = ?, note = ?, everything = ? WHERE id = ?`, g.Name, g.Note, g.Everything, g.ID); err != nil {
			return err
		}
		if err := storeReach(ctx, tx, g); err != nil {
			return err
		}
		nodes, err = raiseDiffering(ctx, tx, before, g)
		return err
	})
	return g, nodes, err
}

// raiseDiffering raises the revision of the nodes on which a group reaches other inbounds than
// before, where the group has a subscription that is let in.
func raiseDiffering(ctx context.Context, tx *sql.Tx, before, after Group) ([]int64, error) {
	var has bool
	if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM subscriptions WHERE group_id = ? AND status IN ('active', 'on_hold'))`, after.ID).Scan(&has); err != nil || !has {
		return nil, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT n.id, p.id FROM nodes n LEFT JOIN node_protocols p ON p.node_id = n.id ORDER BY n.id`)
	type place struct{ node, protocol int64 }
	places, err := collect(rows, err, func(r *sql.Rows) (place, error) {
		var at place
		var protocol sql.NullInt64
		err := r.Scan(&at.node, &protocol)
		at.protocol = protocol.Int64
		return at, err
	})
	if err != nil {
		return nil, err
	}
	var nodes []int64
	for _, at := range places {
		if before.Reaches(at.node, at.protocol) == after.Reaches(at.node, at.protocol) || slices.Contains(nodes, at.node) {
			continue
		}
		raised, err := raiseRevision(ctx, tx, at.node)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, raised...)
	}
	return nodes, nil
}

// Reaches reports whether the group is on the inbound; protocol 0 is a node without inbounds.
func (g Group) Reaches(node, protocol int64) bool {
	return g.Everything || slices.Contains(g.Nodes, node) || slices.Contains(g.Protocols, protocol)
}

// RemoveGroup deletes a group. The default group stays, and so does one that subscriptions or
// plans are in (ErrInUse).
func (s *Store) RemoveGroup(ctx context.Context, nameOrID string) (g Group, err error) {
	return g, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if g, err = group(ctx, tx, nameOrID); err != nil {
			return err
		}
		var plans int64
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM plans WHERE group_id = ?`, g.ID).Scan(&plans); err != nil {
			return err
		}
		switch {
		case g.ID == DefaultGroup:
			return fmt.Errorf("group %s: %w: subscriptions are in it unless they are put into another; edit it instead", g.Name, ErrInUse)
		case g.Subscriptions > 0 || plans > 0:
			return fmt.Errorf("group %s: %w: %d subscriptions and %d plans are in it; put them into another group first", g.Name, ErrInUse, g.Subscriptions, plans)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM access_groups WHERE id = ?`, g.ID)
		return err
	})
}

// Group finds a group by name or, if none has that name, by id.
func (s *Store) Group(ctx context.Context, nameOrID string) (Group, error) {
	return group(ctx, s.read, nameOrID)
}

// queryer is a database or a transaction.
type queryer interface {
	querier
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const (
	groupOwnColumns = `g.id, g.name, g.note, g.everything, g.created_at`
	// groupColumns has the number of subscriptions too, for which an index entry of each is read.
	groupColumns = groupOwnColumns + `, (SELECT count(*) FROM subscriptions s WHERE s.group_id = g.id)`
)

func group(ctx context.Context, db queryer, nameOrID string) (Group, error) {
	g, err := scanGroup(db.QueryRowContext(ctx, `SELECT `+groupColumns+` FROM access_groups g WHERE g.name = ? OR g.id = ?
		ORDER BY g.name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID))
	if err != nil {
		return g, orNotFound(err, "group", nameOrID)
	}
	return g, readReach(ctx, db, &g)
}

// groupReach returns the group with the id, and 0 as the number of its subscriptions.
func groupReach(ctx context.Context, db queryer, id int64) (Group, error) {
	g, err := scanGroup(db.QueryRowContext(ctx, `SELECT `+groupOwnColumns+`, 0 FROM access_groups g WHERE g.id = ?`, id))
	if err != nil {
		return g, orNotFound(err, "group", strconv.FormatInt(id, 10))
	}
	return g, readReach(ctx, db, &g)
}

// readReach reads the nodes and inbounds of a group.
func readReach(ctx context.Context, db querier, g *Group) (err error) {
	id := func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) }
	rows, err := db.QueryContext(ctx, `SELECT node_id FROM group_nodes WHERE group_id = ? ORDER BY node_id`, g.ID)
	if g.Nodes, err = collect(rows, err, id); err != nil {
		return err
	}
	rows, err = db.QueryContext(ctx, `SELECT protocol_id FROM group_protocols WHERE group_id = ? ORDER BY protocol_id`, g.ID)
	g.Protocols, err = collect(rows, err, id)
	return err
}

// Groups returns all groups.
func (s *Store) Groups(ctx context.Context) ([]Group, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+groupColumns+` FROM access_groups g ORDER BY g.id`)
	all, err := collect(rows, err, func(r *sql.Rows) (Group, error) { return scanGroup(r) })
	for i := range all {
		if err == nil {
			err = readReach(ctx, s.read, &all[i])
		}
	}
	return all, err
}

func scanGroup(row interface{ Scan(...any) error }) (g Group, err error) {
	var created int64
	err = row.Scan(&g.ID, &g.Name, &g.Note, &g.Everything, &created, &g.Subscriptions)
	g.CreatedAt = time.UnixMilli(created).UTC()
	return g, err
}
