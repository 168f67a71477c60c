package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// Routing is a routing profile.
type Routing = coreapi.Routing

// DefaultRouting is the profile of a node that is added.
const DefaultRouting = coreapi.DefaultRouting

const routingColumns = `id, name, note, block_private, block_torrents, block_domains, block_ips, domain_strategy, rules, dns, policy, created_at`

// routingValues returns what is written to the columns between id and created_at.
func routingValues(r Routing) ([]any, error) {
	domains, errDomains := json.Marshal(r.BlockDomains)
	ips, errIPs := json.Marshal(r.BlockIPs)
	return []any{r.Name, r.Note, r.BlockPrivate, r.BlockTorrents, string(domains), string(ips), r.DomainStrategy, string(r.Rules), string(r.DNS), string(r.Policy)}, errors.Join(errDomains, errIPs)
}

func scanRouting(row interface{ Scan(...any) error }) (r Routing, err error) {
	var created int64
	var domains, ips, rules, dns, policy string
	if err := row.Scan(&r.ID, &r.Name, &r.Note, &r.BlockPrivate, &r.BlockTorrents, &domains, &ips, &r.DomainStrategy, &rules, &dns, &policy, &created); err != nil {
		return r, err
	}
	r.CreatedAt, r.Nodes = time.UnixMilli(created).UTC(), []int64{}
	for _, object := range []struct {
		to   *json.RawMessage
		text string
	}{{&r.Rules, rules}, {&r.DNS, dns}, {&r.Policy, policy}} {
		if object.text != "" {
			*object.to = json.RawMessage(object.text)
		}
	}
	return r, errors.Join(json.Unmarshal([]byte(domains), &r.BlockDomains), json.Unmarshal([]byte(ips), &r.BlockIPs))
}

// AddRouting adds a routing profile, and gives it to its nodes in the place of the ones that they
// have. It raises the revision of those nodes and returns them. ErrExists if another profile has
// the name.
func (s *Store) AddRouting(ctx context.Context, r Routing) (_ Routing, nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		if r.ID, err = nextID(ctx, tx, "routing_profiles"); err != nil {
			return err
		}
		r.CreatedAt = stored(time.Now())
		values, err := routingValues(r)
		if err != nil {
			return err
		}
		args := append(append([]any{r.ID}, values...), millis(r.CreatedAt))
		added, err := tx.ExecContext(ctx, `INSERT INTO routing_profiles (`+routingColumns+`) VALUES `+placeholders(len(args), 1)+` ON CONFLICT DO NOTHING`, args...)
		if err != nil {
			return err
		}
		if n, err := added.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return fmt.Errorf("routing profile %q: %w", r.Name, ErrExists)
		}
		nodes, err = giveRouting(ctx, tx, r.ID, r.Nodes)
		return err
	})
	return r, nodes, err
}

// giveRouting gives the profile, 0 for none, to nodes. It raises their revision and returns them.
func giveRouting(ctx context.Context, tx *sql.Tx, id int64, nodes []int64) (all []int64, err error) {
	for _, node := range nodes {
		changed, err := deleted(tx.ExecContext(ctx, `UPDATE nodes SET routing_id = ? WHERE id = ? AND routing_id != ?`, id, node, id))
		if err != nil {
			return nil, fmt.Errorf("give a routing profile to node %d: %w", node, err)
		}
		if changed == 0 {
			continue
		}
		raised, err := raiseRevision(ctx, tx, node)
		if err != nil {
			return nil, err
		}
		all = append(all, raised...)
	}
	return all, nil
}

// EditRouting changes a routing profile, also which nodes have it, and returns it. It raises the
// revision of the nodes to which that is a change, and returns them.
func (s *Store) EditRouting(ctx context.Context, nameOrID string, edit func(*Routing) error) (r Routing, nodes []int64, err error) {
	err = s.inTransaction(ctx, func(tx *sql.Tx) error {
		before, err := routing(ctx, tx, nameOrID)
		if err != nil {
			return err
		}
		r = before
		r.Nodes = slices.Clone(before.Nodes)
		if err := edit(&r); err != nil {
			return err
		}
		if err := nameIsFree(ctx, tx, "routing_profiles", r.Name, r.ID); err != nil {
			return fmt.Errorf("routing profile %q: %w", r.Name, err)
		}
		values, err := routingValues(r)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE routing_profiles SET (name, note, block_private, block_torrents, block_domains, block_ips, domain_strategy, rules, dns, policy)
			= `+placeholders(len(values), 1)+` WHERE id = ?`, append(values, r.ID)...); err != nil {
			return err
		}
		left := slices.DeleteFunc(slices.Clone(before.Nodes), func(id int64) bool { return slices.Contains(r.Nodes, id) })
		if nodes, err = giveRouting(ctx, tx, 0, left); err != nil {
			return err
		}
		came, err := giveRouting(ctx, tx, r.ID, r.Nodes)
		if err != nil {
			return err
		}
		nodes = append(nodes, came...)
		if sameForNodes(before, r) {
			return nil
		}
		for _, id := range r.Nodes {
			if slices.Contains(came, id) {
				continue
			}
			raised, err := raiseRevision(ctx, tx, id)
			if err != nil {
				return err
			}
			nodes = append(nodes, raised...)
		}
		return nil
	})
	return r, nodes, err
}

// sameForNodes reports whether two profiles are the same to nodes.
func sameForNodes(a, b Routing) bool {
	a.Name, a.Note, a.Nodes = b.Name, b.Note, b.Nodes
	return reflect.DeepEqual(a, b)
}

// RemoveRouting deletes a routing profile. The default one stays, and so does one that nodes
// have (ErrInUse).
func (s *Store) RemoveRouting(ctx context.Context, nameOrID string) (r Routing, err error) {
	return r, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if r, err = routing(ctx, tx, nameOrID); err != nil {
			return err
		}
		switch {
		case r.ID == DefaultRouting:
			return fmt.Errorf("routing profile %s: %w: nodes that are added get it; edit it instead", r.Name, ErrInUse)
		case len(r.Nodes) > 0:
			return fmt.Errorf("routing profile %s: %w: %d nodes have it; give them another one first", r.Name, ErrInUse, len(r.Nodes))
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM routing_profiles WHERE id = ?`, r.ID)
		return err
	})
}

// Routing finds a routing profile by name or, if none has that name, by id.
func (s *Store) Routing(ctx context.Context, nameOrID string) (Routing, error) {
	return routing(ctx, s.read, nameOrID)
}

func routing(ctx context.Context, db queryer, nameOrID string) (Routing, error) {
	r, err := scanRouting(db.QueryRowContext(ctx, `SELECT `+routingColumns+` FROM routing_profiles WHERE name = ? OR id = ?
		ORDER BY name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID))
	if err != nil {
		return r, orNotFound(err, "routing profile", nameOrID)
	}
	return r, readNodesOf(ctx, db, &r)
}

// readNodesOf reads the nodes that have the profile.
func readNodesOf(ctx context.Context, db querier, r *Routing) (err error) {
	rows, err := db.QueryContext(ctx, `SELECT id FROM nodes WHERE routing_id = ? ORDER BY id`, r.ID)
	r.Nodes, err = collect(rows, err, func(r *sql.Rows) (id int64, err error) { return id, r.Scan(&id) })
	return err
}

// routingOf returns the profile of a node; nil for none.
func (s *Store) routingOf(ctx context.Context, node Node) (*Routing, error) {
	if node.RoutingID == 0 {
		return nil, nil
	}
	r, err := scanRouting(s.read.QueryRowContext(ctx, `SELECT `+routingColumns+` FROM routing_profiles WHERE id = ?`, node.RoutingID))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &r, err
}

// Routings returns all routing profiles.
func (s *Store) Routings(ctx context.Context) ([]Routing, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+routingColumns+` FROM routing_profiles ORDER BY id`)
	all, err := collect(rows, err, func(r *sql.Rows) (Routing, error) { return scanRouting(r) })
	for i := range all {
		if err == nil {
			err = readNodesOf(ctx, s.read, &all[i])
		}
	}
	return all, err
}
