package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// Node is one VPN host.
type Node = coreapi.Node

// OfflineAfter is how long after its last heartbeat a node counts as offline. It is longer than a
// heartbeat is held (a minute at the most) and SeenEvery together.
const OfflineAfter = 90 * time.Second

// lastSeen is when a node was heard of last, in SQL; NULL where it has not spoken since it was registered.
const lastSeen = `CASE WHEN nodes.last_seen_at IS NULL THEN NULL
	ELSE max(nodes.last_seen_at, coalesce((SELECT at FROM node_seen WHERE node_id = nodes.id), 0)) END`

const nodeColumns = `id, name, region, host, ip, status, ` + syncStatus + `, ` + wanted + `, applied_revision,
	` + lastSeen + `, last_error, last_error_code, last_error_at, registered_at, mtproto, agent, two_daemons_at, next_key_hash IS NOT NULL, refused_revision,
	enabled, note, tags, address, multiplier, budget_bytes, budget_day, budget_action, routing_id, maintenance, budget_warn,
	coalesce((SELECT used FROM node_budgets WHERE node_id = nodes.id), 0), coalesce((SELECT spent FROM node_budgets WHERE node_id = nodes.id), 0)`

func scanNode(row interface{ Scan(...any) error }) (Node, error) {
	var n Node
	var applied, seen, errorAt, registered, two sql.NullInt64
	var tags string
	err := row.Scan(&n.ID, &n.Name, &n.Region, &n.Host, &n.IP, &n.Status, &n.SyncStatus, &n.Revision, &applied,
		&seen, &n.LastError, &n.LastErrorCode, &errorAt, &registered, &n.MTProto, &n.Agent, &two, &n.KeyOffered, &n.RefusedRevision,
		&n.Enabled, &n.Note, &tags, &n.Address, &n.Multiplier, &n.BudgetBytes, &n.BudgetDay, &n.BudgetAction, &n.RoutingID, &n.Maintenance, &n.BudgetWarnPercent, &n.BudgetUsedBytes, &n.OverBudget)
	if err == nil {
		err = json.Unmarshal([]byte(tags), &n.Tags)
	}
	if applied.Valid {
		n.AppliedRevision = &applied.Int64
	}
	n.LastSeenAt, n.LastErrorAt, n.RegisteredAt, n.TwoDaemonsAt = fromMillis(seen), fromMillis(errorAt), fromMillis(registered), fromMillis(two)
	if n.LastSeenAt != nil && time.Since(*n.LastSeenAt) > OfflineAfter {
		n.Status = "offline"
	}
	return n, err
}

// AddNode adds a node that is not registered yet and returns its registration code, which is
// good for codeLife. The node starts with one outbound, direct, and the default
// routing profile.
func (s *Store) AddNode(ctx context.Context, name, region string, codeLife time.Duration) (Node, string, error) {
	var node Node
	code := newCode()
	now := time.Now()
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		id, err := nextID(ctx, tx, "nodes")
		if err != nil {
			return err
		}
		row := tx.QueryRowContext(ctx, `INSERT INTO nodes (id, name, region, revision, created_at, routing_id) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
			ON CONFLICT DO NOTHING RETURNING `+nodeColumns, id, name, region, millis(now), DefaultRouting)
		if node, err = scanNode(row); errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("node %q: %w", name, ErrExists)
		} else if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_outbounds (node_id, tag, config, created_at)
			VALUES (?, 'direct', '{"protocol":"freedom","settings":{},"tag":"direct"}', ?)`, node.ID, millis(now)); err != nil {
			return err
		}
		return addCode(ctx, tx, node.ID, code, now.Add(codeLife))
	})
	return node, code, err
}

// EditNode changes a node's name, region and terms and returns it. Where the node serves afterwards and
// did not before, or the other way round, or gives it another routing profile, it raises the node's revision and returns the node's id in nodes.
func (s *Store) EditNode(ctx context.Context, nameOrID string, edit func(*Node) error) (n Node, nodes []int64, err error) {
	defer s.enforcing.wake()
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		if n, err = node(ctx, tx, nameOrID); err != nil {
			return err
		}
		before := n
		if err := edit(&n); err != nil {
			return err
		}
		if err := n.Check(); err != nil {
			return err
		}
		if err := nameIsFree(ctx, tx, "nodes", n.Name, n.ID); err != nil {
			return fmt.Errorf("node %q: %w", n.Name, err)
		}
		tags, err := json.Marshal(n.Tags)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET name = ?, region = ?, enabled = ?, note = ?, tags = ?, address = ?, multiplier = ?,
			budget_bytes = ?, budget_day = ?, budget_action = ?, routing_id = ?, maintenance = ?, budget_warn = ? WHERE id = ?`,
			n.Name, n.Region, n.Enabled, n.Note, string(tags), n.Address, n.Multiplier, n.BudgetBytes, n.BudgetDay, n.BudgetAction, n.RoutingID, n.Maintenance, n.BudgetWarnPercent, n.ID); err != nil {
			return err
		}
		if n.BudgetBytes != before.BudgetBytes || n.BudgetDay != before.BudgetDay || n.BudgetWarnPercent != before.BudgetWarnPercent {
			if err := s.setBudget(ctx, tx, n, s.clock()); err != nil {
				return err
			}
		}
		if n, err = node(ctx, tx, strconv.FormatInt(n.ID, 10)); err != nil {
			return err
		}
		if n.Serves() == before.Serves() && n.RoutingID == before.RoutingID {
			return nil
		}
		nodes, err = raiseRevision(ctx, tx, n.ID)
		return err
	})
	return n, nodes, err
}

// SetMTProto stores the options that the node's MTProto inbounds share (Node.MTProto) and
// raises the node's revision.
func (s *Store) SetMTProto(ctx context.Context, nodeID int64, options []byte) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE nodes SET mtproto = ? WHERE id = ?`, string(options), nodeID); err != nil {
			return err
		}
		_, err := raiseRevision(ctx, tx, nodeID)
		return err
	})
}

// errorHolds is how long a reported error keeps the status error. An agent reports an error
// that lasts again every ten minutes.
const errorHolds = 11 * time.Minute

// Beat is what Core knows about a node after a heartbeat.
type Beat struct {
	Revision int64  // that the node should run
	ETag     string // of the document of that revision; empty where none was built yet
	// NextKey is the auth key that the node is offered; empty for none.
	NextKey string
	// Restored is set where this heartbeat showed that the database is older than the node's
	// configuration: it was restored from a copy. The epoch is raised then.
	Restored bool
	// TwoDaemons is set where this heartbeat showed that two daemons use the node's key: it
	// came from an earlier daemon, after a later one had spoken.
	TwoDaemons bool
}

// Daemon is which daemon speaks for a node, as its headers say. An agent that does not know these
// headers leaves them empty.
type Daemon struct {
	Boot    string // random for each start of the daemon
	Machine string // a hash of the host's machine-id
	Agent   string // its versions; NoteAgent stores them
}

// Heartbeat stores that the node is alive and which revision it runs. A heartbeat that QuietBeat answers
// needs none of it: ask that first.
//
// A node with the status error, or degraded (it runs without some parts of its
// configuration), becomes online again when it reports a configuration as
// applied (Applied), or when it runs the wanted revision and has not reported an error for
// errorHolds. A node that runs the wanted revision and has no error counts as synced also
// where its report of that was lost.
func (s *Store) Heartbeat(ctx context.Context, nodeID int64, r wire.HeartbeatRequest, from Daemon) (b Beat, err error) {
	now := time.Now()
	defer s.known.forgetBeats(nodeID)
	var boot, earlierBoot, seed string
	var given int64
	var untold bool
	err = s.write.QueryRowContext(ctx, `UPDATE nodes SET last_seen_at = ?1, applied_revision = coalesce(?2, applied_revision),
		ip = CASE WHEN ?3 = '' THEN ip ELSE ?3 END,
		status = CASE WHEN status IN ('error', 'degraded') AND (last_error_at > ?4 OR `+wanted+` IS DISTINCT FROM ?2) THEN status ELSE 'online' END,
		sync_status = CASE WHEN `+wanted+` IS NOT DISTINCT FROM ?2 AND (status NOT IN ('error', 'degraded') OR last_error_at <= ?4) THEN 'synced' ELSE sync_status END
		WHERE id = ?5 RETURNING `+wanted+`, CASE WHEN document_revision = `+wanted+` THEN document_etag ELSE '' END, boot, earlier_boot, next_key_seed,
			CASE WHEN document_revision = 0 THEN `+wanted+` ELSE document_revision END, told != status`,
		millis(now), r.Revision, r.IP, millis(now.Add(-errorHolds)), nodeID).Scan(&b.Revision, &b.ETag, &boot, &earlierBoot, &seed, &given, &untold)
	if err != nil {
		return b, orNotFound(err, "node", nodeID)
	}
	if untold { // WatchNodes sees it where this fails
		if err := s.retried(ctx, s.write, func(tx *sql.Tx) error { return s.tellState(ctx, tx, nodeID, now) }); err != nil {
			return b, err
		}
	}
	if seed != "" {
		b.NextKey = s.keys.nextKey(nodeID, seed)
	}
	if b.Restored, err = s.noticeRestore(ctx, r.Revision, given); err != nil {
		return b, err
	}
	if from.Boot != "" && from.Boot != boot {
		b.TwoDaemons = from.Boot == earlierBoot
		if err := s.noteDaemon(ctx, nodeID, from, b.TwoDaemons); err != nil {
			return b, err
		}
	}
	// An inbound that had failed serves again once the node's error is over.
	if _, err := s.write.ExecContext(ctx, `UPDATE node_protocols SET status = 'active' WHERE node_id = ?1 AND status = 'failed'
		AND EXISTS (SELECT 1 FROM nodes WHERE id = ?1 AND status = 'online' AND sync_status = 'synced' AND `+wanted+` IS NOT DISTINCT FROM ?2)`, nodeID, r.Revision); err != nil {
		return b, err
	}
	_, err = s.write.ExecContext(ctx, `DELETE FROM node_refusals WHERE node_id = ?1
		AND EXISTS (SELECT 1 FROM nodes WHERE id = ?1 AND status = 'online' AND sync_status = 'synced' AND `+wanted+` IS NOT DISTINCT FROM ?2)`, nodeID, r.Revision)
	return b, err
}

// NoteAgent stores the versions that a node says it has. It raises the node's revision where
// these versions give the node another configuration, which differs says.
func (s *Store) NoteAgent(ctx context.Context, nodeID int64, agent string, differs bool) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE nodes SET agent = ?1 WHERE id = ?2`, agent, nodeID)
		if err == nil && differs {
			_, err = raiseRevision(ctx, tx, nodeID)
		}
		return err
	})
}

// Node finds a node by its name or, if no node has that name, by its id.
func (s *Store) Node(ctx context.Context, nameOrID string) (Node, error) {
	return node(ctx, s.read, nameOrID)
}

func node(ctx context.Context, db queryer, nameOrID string) (Node, error) {
	row := db.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE name = ? OR id = ?
		ORDER BY name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID)
	n, err := scanNode(row)
	return n, orNotFound(err, "node", nameOrID)
}

// NodeByID returns the node of that id.
func (s *Store) NodeByID(ctx context.Context, nodeID int64) (Node, error) {
	node, err := scanNode(s.read.QueryRowContext(ctx, `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, nodeID))
	return node, orNotFound(err, "node", nodeID)
}

// Nodes returns all nodes.
func (s *Store) Nodes(ctx context.Context) ([]Node, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+nodeColumns+` FROM nodes ORDER BY id`)
	return collect(rows, err, func(r *sql.Rows) (Node, error) { return scanNode(r) })
}

var listedNodes = listing[Node]{
	what: "nodes", table: "nodes", columns: nodeColumns, scan: scanNode, id: func(n Node) int64 { return n.ID },
	orders: map[string]order[Node]{"name": {"name", func(n Node) any { return n.Name }}},
}

// ListNodes returns a page of the nodes. search is a part of a name, and empty for all.
func (s *Store) ListNodes(ctx context.Context, search string, list List) ([]Node, *Position, error) {
	var where []string
	var args []any
	if search != "" {
		condition, words := has(search, "name")
		where, args = append(where, condition), append(args, words...)
	}
	return listedNodes.page(ctx, s.read, list, where, args)
}

// RemoveNode deletes a node with its inbounds, outbounds and errors; its auth key is not
// accepted any more. Users' traffic on the node is kept, its outbounds' traffic is not.
func (s *Store) RemoveNode(ctx context.Context, nodeID int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		var name string
		if err := tx.QueryRowContext(ctx, `SELECT name FROM nodes WHERE id = ?`, nodeID).Scan(&name); errors.Is(err, sql.ErrNoRows) {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO removed_names (kind, id, name, removed_at)
			SELECT 'protocol', id, ? || '/' || tag, ? FROM node_protocols WHERE node_id = ?`, name, millis(time.Now()), nodeID); err != nil {
			return fmt.Errorf("keep the names of the inbounds of node %s: %w", name, err)
		}
		if err := keepName(ctx, tx, "node", nodeID, name, 0); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM online_sessions WHERE node_id = ?`, nodeID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM nodes WHERE id = ?`, nodeID)
		return err
	})
}

// parseID returns -1, which is no row's id, for a text that is no number.
func parseID(text string) int64 {
	id, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return -1
	}
	return id
}
