package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Progress is what a node has said about the revisions of its configuration.
type Progress struct {
	Name            string
	RegisteredAt    *time.Time
	LastSeenAt      *time.Time
	AppliedRevision *int64
	RefusedRevision *int64
	Refusals        []Refusal // in the order of Store.Refusals
}

// ProgressOf returns the progress of those of the nodes that are there. It asks two queries.
//
// They are not one transaction. The nodes are read first: refusals that come between the two belong to
// a report that the next call sees.
func (s *Store) ProgressOf(ctx context.Context, nodes []int64) (map[int64]Progress, error) {
	of := oneOf(nodes)
	all := make(map[int64]Progress, len(of))
	rows, err := s.read.QueryContext(ctx, `SELECT id, name, registered_at, `+lastSeen+`, applied_revision, refused_revision
		FROM nodes WHERE `+of.condition("id"), of.args()...)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id int64
		var p Progress
		var registered, seen sql.NullInt64
		err := r.Scan(&id, &p.Name, &registered, &seen, &p.AppliedRevision, &p.RefusedRevision)
		p.RegisteredAt, p.LastSeenAt = fromMillis(registered), fromMillis(seen)
		if of.has(id) {
			all[id] = p
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read which revisions nodes run: %w", err)
	}
	rows, err = s.read.QueryContext(ctx, `SELECT node_id, `+refusalColumns+` FROM node_refusals
		WHERE `+of.condition("node_id")+refusalOrder, of.args()...)
	_, err = collect(rows, err, func(r *sql.Rows) (struct{}, error) {
		var id int64
		refusal, err := scanRefusal(r, &id)
		if p, found := all[id]; found {
			p.Refusals = append(p.Refusals, refusal)
			all[id] = p
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("read what nodes refuse: %w", err)
	}
	return all, nil
}

// Refusing returns those of the nodes that refuse a part of their configuration, by their ids.
func (s *Store) Refusing(ctx context.Context, nodes []int64) ([]int64, error) {
	of := oneOf(nodes)
	rows, err := s.read.QueryContext(ctx, `SELECT DISTINCT node_id FROM node_refusals WHERE `+of.condition("node_id")+` ORDER BY node_id`, of.args()...)
	found, err := collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	if err != nil {
		return nil, fmt.Errorf("read which nodes refuse something: %w", err)
	}
	refusing := []int64{}
	for _, id := range found {
		if of.has(id) {
			refusing = append(refusing, id)
		}
	}
	return refusing, nil
}
