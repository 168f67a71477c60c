package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

const (
	// wanted is the revision that a node should run, in SQL. On SQLite a change of clients on all nodes is one
	// of the row of all_nodes (dialect.raiseClients). It is later than every revision of before.
	wanted = `max(nodes.revision, (SELECT revision FROM all_nodes))`
	// syncStatus is the node's sync_status. A node that was synced with an earlier revision waits.
	syncStatus = `CASE WHEN nodes.sync_status = 'synced' AND nodes.applied_revision IS DISTINCT FROM ` + wanted + ` THEN 'pending' ELSE nodes.sync_status END`
)

// Revision returns the revision that the node should run.
func (s *Store) Revision(ctx context.Context, nodeID int64) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT `+wanted+` FROM nodes WHERE id = ?`, nodeID).Scan(&revision)
	return revision, orNotFound(err, "node", nodeID)
}

// servesClients is a condition on rows of nodes, see RevisionsOf.
const servesClients = `registered_at IS NOT NULL AND enabled = 1 AND maintenance = 0
	AND NOT (budget_action = 'stop' AND EXISTS (SELECT 1 FROM node_budgets WHERE node_id = nodes.id AND spent = 1))
	AND EXISTS (SELECT 1 FROM node_protocols WHERE node_id = nodes.id)`

// RevisionsOf returns the revisions of those of the nodes that are there. serving leaves out those that
// serve nobody: they are not registered, or Node.Serves is false, or they have no inbound.
func (s *Store) RevisionsOf(ctx context.Context, nodes []int64, serving bool) (all []coreapi.Revision, err error) {
	all = []coreapi.Revision{}
	condition := ""
	if serving {
		condition = ` AND ` + servesClients
	}
	of := oneOf(nodes)
	rows, err := s.read.QueryContext(ctx, `SELECT id, `+wanted+` FROM nodes WHERE `+of.condition("id")+condition+` ORDER BY id`, of.args()...)
	found, err := collect(rows, err, func(r *sql.Rows) (n coreapi.Revision, err error) { return n, r.Scan(&n.Node, &n.Revision) })
	if err != nil {
		return nil, fmt.Errorf("read the revisions of nodes: %w", err)
	}
	for _, n := range found {
		if of.has(n.Node) {
			all = append(all, n)
		}
	}
	return all, nil
}

// RevisionsSince returns the revisions of the nodes that have at least this one. serving leaves out those that serve
// nobody (RevisionsOf). They are all nodes that a change has raised to this revision or a later one, and
// others: those that were changed at the same time or later.
func (s *Store) RevisionsSince(ctx context.Context, least int64, serving bool) ([]coreapi.Revision, error) {
	condition := ""
	if serving {
		condition = ` AND ` + servesClients
	}
	rows, err := s.read.QueryContext(ctx, `SELECT id, `+wanted+` FROM nodes WHERE `+wanted+` >= ?`+condition+` ORDER BY id`, least)
	all, err := collect(rows, err, func(r *sql.Rows) (n coreapi.Revision, err error) { return n, r.Scan(&n.Node, &n.Revision) })
	if err != nil {
		return nil, fmt.Errorf("read which nodes have revision %d or a later one: %w", least, err)
	}
	return all, nil
}

// Newest returns the revision that the node should run, and its layout: a number that is raised with
// every change of NodeRows but for Subscriptions.
func (s *Store) Newest(ctx context.Context, nodeID int64) (revision, layout int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT `+wanted+`, layout FROM nodes WHERE id = ?`, nodeID).Scan(&revision, &layout)
	return revision, layout, orNotFound(err, "node", nodeID)
}

// NodeRows are everything that nodeconfig.Build needs for a node's configuration.
type NodeRows struct {
	Node      Node
	Protocols []Protocol
	Outbounds []Outbound
	// Subscriptions are those that are let in and whose group reaches an inbound of the node,
	// or all inbounds of all nodes.
	Subscriptions []Subscription
	// Reach says which of the subscriptions are on which of the inbounds.
	Reach Reach
	// Routing is the node's routing profile; nil for none.
	Routing *Routing
}

// NodeRows reads the rows of a node.
//
// The queries are not one transaction, so the rows can be newer than Node.Revision, which is
// read first. Such a change raises the revision too, so the node fetches the configuration
// once more. Read last, the revision could be newer than the rows, and the node would never
// fetch the change.
func (s *Store) NodeRows(ctx context.Context, nodeID int64) (rows NodeRows, err error) {
	if rows, err = s.LayoutRows(ctx, nodeID); err != nil {
		return rows, err
	}
	found, err := s.read.QueryContext(ctx, `SELECT `+subscriptionColumns+` FROM subscriptions WHERE status IN ('active', 'on_hold') AND group_id IN
		(SELECT id FROM access_groups WHERE everything = 1
		UNION SELECT group_id FROM group_nodes WHERE node_id = ?1
		UNION SELECT g.group_id FROM group_protocols g JOIN node_protocols p ON p.id = g.protocol_id WHERE p.node_id = ?1) ORDER BY group_id, id`, nodeID)
	if rows.Subscriptions, err = collect(found, err, func(r *sql.Rows) (Subscription, error) { return scanSubscription(r) }); err != nil {
		return rows, err
	}
	grants, err := s.Grants(ctx, nodeID)
	for i := range rows.Subscriptions {
		rows.Subscriptions[i].Grant = grants[rows.Subscriptions[i].ID]
	}
	return rows, err
}

// LayoutRows is NodeRows without the subscriptions.
func (s *Store) LayoutRows(ctx context.Context, nodeID int64) (rows NodeRows, err error) {
	if rows.Node, err = s.NodeByID(ctx, nodeID); err != nil {
		return rows, err
	}
	if rows.Protocols, err = s.Protocols(ctx, nodeID); err != nil {
		return rows, err
	}
	if rows.Outbounds, err = s.Outbounds(ctx, nodeID); err != nil {
		return rows, err
	}
	if rows.Routing, err = s.routingOf(ctx, rows.Node); err != nil {
		return rows, err
	}
	rows.Reach, err = s.reachOf(ctx, nodeID)
	return rows, err
}

// raiseRevision raises the revision of the node and marks it as not synced. Node 0 means all
// nodes. It returns the nodes' ids. It raises the layout too: raiseReached, for changes of clients
// alone, does not.
func raiseRevision(ctx context.Context, tx *sql.Tx, nodeID int64) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, `UPDATE nodes SET revision = max(`+wanted+` + 1, ?1),
		layout = layout + 1, sync_status = CASE WHEN registered_at IS NULL THEN sync_status ELSE 'pending' END
		WHERE ?2 = 0 OR id = ?2 RETURNING id`, millis(time.Now()), nodeID)
	return collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
}

// Applied stores that the node runs the revision, which ends an error of the node. The node
// counts as synced only if the revision is the wanted one. key is the report's
// Idempotency-Key or empty.
func (s *Store) Applied(ctx context.Context, nodeID int64, key string, revision int64) error {
	return s.reports.add(ctx, report{nodeID, key, revision}, s.storeReports)
}

// report says which revision a node runs.
type report struct {
	node     int64
	key      string
	revision int64
}

// storeReports stores the reports of several nodes, each key once. It orders them by their nodes.
func (s *Store) storeReports(ctx context.Context, reports []report) error {
	slices.SortStableFunc(reports, func(a, b report) int { return cmp.Compare(a.node, b.node) })
	defer func() {
		for _, r := range reports {
			s.known.forgetBeats(r.node)
		}
	}()
	return s.retried(ctx, s.write, func(tx *sql.Tx) error {
		// An edit that raises the revisions of nodes locks the same rows in another order.
		if err := s.dialect.lockEdits(ctx, tx); err != nil {
			return err
		}
		// Most reports say no more than this: each further statement costs as much again.
		update, err := tx.PrepareContext(ctx, `UPDATE nodes SET applied_revision = ?1, status = 'online', last_seen_at = ?2,
			sync_status = CASE WHEN `+wanted+` = ?1 THEN 'synced' ELSE 'pending' END WHERE id = ?3
			RETURNING told != 'online', coalesce(refused_revision, 0) <= ?1 AND EXISTS (SELECT 1 FROM node_refusals WHERE node_id = ?3),
				`+wanted+` = ?1 AND EXISTS (SELECT 1 FROM node_protocols WHERE node_id = ?3 AND status != 'active')`)
		if err != nil {
			return err
		}
		defer update.Close()
		keep, err := tx.PrepareContext(ctx, keepKey)
		if err != nil {
			return err
		}
		defer keep.Close()
		for _, r := range reports {
			first := true
			if r.key != "" {
				if first, err = inserted(keep.ExecContext(ctx, r.node, r.key, wire.PathApplied, millis(time.Now()))); err != nil {
					return err
				}
			}
			if !first {
				continue
			}
			if err := s.storeReport(ctx, tx, update, r); err != nil {
				return fmt.Errorf("store which revision node %d runs: %w", r.node, err)
			}
		}
		return nil
	})
}

func (s *Store) storeReport(ctx context.Context, tx *sql.Tx, update *sql.Stmt, r report) error {
	now := time.Now()
	var untold, refuses, failed bool
	err := update.QueryRowContext(ctx, r.revision, millis(now), r.node).Scan(&untold, &refuses, &failed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // it was removed
	}
	if err == nil && untold {
		err = s.tellState(ctx, tx, r.node, now)
	}
	if err == nil && refuses { // it runs as a whole
		_, err = tx.ExecContext(ctx, `DELETE FROM node_refusals WHERE node_id = ?`, r.node)
	}
	if err == nil && failed {
		_, err = tx.ExecContext(ctx, `UPDATE node_protocols SET status = 'active' WHERE node_id = ? AND status != 'active'`, r.node)
	}
	return err
}
