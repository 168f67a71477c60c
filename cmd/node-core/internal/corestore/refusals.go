package corestore

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// Refusal is a part of its configuration that a node does not run.
type Refusal = coreapi.Refusal

const (
	maxRefusals   = 100 // that are stored of one report; an agent of ours names as many
	maxRefusalTag = 200 // bytes of a kind, a tag or a client
	maxReason     = 2000
)

// refusalsOf returns the parts that a report names. A report about something else has none.
func refusalsOf(details map[string]any) []Refusal {
	parts, _ := details["parts"].([]any)
	var all []Refusal
	for _, p := range parts[:min(len(parts), maxRefusals)] {
		part, _ := p.(map[string]any)
		text := func(name string, limit int) string {
			s, _ := part[name].(string)
			return strings.ToValidUTF8(s[:min(len(s), limit)], "")
		}
		retry, _ := part["retry"].(bool)
		all = append(all, Refusal{Kind: text("kind", maxRefusalTag), Tag: text("tag", maxRefusalTag), Client: text("client", maxRefusalTag), Reason: text("reason", maxReason), Retry: retry})
	}
	return all
}

// storeRefusals replaces the node's refusals by those that a report names. One that the node
// had keeps the time since when. A report without parts replaces them where it is about the
// configuration as a whole: one that the node was to apply, and does not run.
func storeRefusals(ctx context.Context, tx *sql.Tx, nodeID int64, e wire.ErrorRequest, now int64) error {
	revision, named := e.Details["revision"].(float64) // JSON has no other numbers
	refusals := refusalsOf(e.Details)
	if len(refusals) == 0 {
		var runs int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(applied_revision, -1) FROM nodes WHERE id = ?`, nodeID).Scan(&runs); err != nil {
			return orNotFound(err, "node", nodeID)
		}
		if !named || int64(revision) <= runs {
			return nil
		}
		refusals = []Refusal{{Reason: e.Message}}
	}
	if _, err := tx.ExecContext(ctx, `UPDATE nodes SET refused_revision = ? WHERE id = ?`, int64(revision), nodeID); err != nil {
		return err
	}
	for _, r := range refusals {
		if _, err := tx.ExecContext(ctx, `INSERT INTO node_refusals (node_id, kind, tag, client, reason, retry, since, since_revision)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node_id, kind, tag, client) DO UPDATE SET reason = excluded.reason, retry = excluded.retry`,
			nodeID, r.Kind, r.Tag, r.Client, r.Reason, r.Retry, now, int64(revision)); err != nil {
			return err
		}
	}
	return forgetOther(ctx, tx, nodeID, refusals)
}

// forgetOther removes the node's refusals that are not among left.
func forgetOther(ctx context.Context, tx *sql.Tx, nodeID int64, left []Refusal) error {
	type name struct{ kind, tag, client string }
	stay := map[name]bool{}
	for _, r := range left {
		stay[name{r.Kind, r.Tag, r.Client}] = true
	}
	rows, err := tx.QueryContext(ctx, `SELECT kind, tag, client FROM node_refusals WHERE node_id = ?`, nodeID)
	had, err := collect(rows, err, func(r *sql.Rows) (n name, err error) { return n, r.Scan(&n.kind, &n.tag, &n.client) })
	if err != nil {
		return err
	}
	for _, n := range had {
		if stay[n] {
			continue
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM node_refusals WHERE node_id = ? AND kind = ? AND tag = ? AND client = ?`,
			nodeID, n.kind, n.tag, n.client); err != nil {
			return err
		}
	}
	return nil
}

const (
	refusalColumns = `kind, tag, client, reason, retry, since, since_revision`
	refusalOrder   = ` ORDER BY since, kind, tag, client`
)

// scanRefusal reads refusalColumns, and the columns before them into before.
func scanRefusal(r *sql.Rows, before ...any) (refusal Refusal, err error) {
	var since int64
	err = r.Scan(append(before, &refusal.Kind, &refusal.Tag, &refusal.Client, &refusal.Reason, &refusal.Retry, &since, &refusal.SinceRevision)...)
	refusal.Since = time.UnixMilli(since).UTC()
	return refusal, err
}

// Refusals returns the parts that the node does not run, those that it refuses longest first.
func (s *Store) Refusals(ctx context.Context, nodeID int64) ([]Refusal, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+refusalColumns+` FROM node_refusals WHERE node_id = ?`+refusalOrder, nodeID)
	return collect(rows, err, func(r *sql.Rows) (Refusal, error) { return scanRefusal(r) })
}
