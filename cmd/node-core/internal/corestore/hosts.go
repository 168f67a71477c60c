package corestore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"nodeagent/coreapi"
)

// Host is what one link to an inbound says.
type Host = coreapi.Host

const hostColumns = `id, protocol_id, enabled, position, remark, address, port, sni, fingerprint, http_host, path, alpn, security, created_at`

func hostValues(h Host) []any {
	return []any{h.Enabled, h.Position, h.Remark, h.Address, h.Port, h.SNI, h.Fingerprint, h.HTTPHost, h.Path, h.ALPN, h.Security}
}

func scanHost(row interface{ Scan(...any) error }) (h Host, err error) {
	var created int64
	err = row.Scan(&h.ID, &h.ProtocolID, &h.Enabled, &h.Position, &h.Remark, &h.Address, &h.Port, &h.SNI, &h.Fingerprint, &h.HTTPHost, &h.Path, &h.ALPN, &h.Security, &created)
	h.CreatedAt = time.UnixMilli(created).UTC()
	return h, err
}

// AddHost adds a host to an inbound. No node knows of it.
func (s *Store) AddHost(ctx context.Context, h Host) (Host, error) {
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		h, err = insertHost(ctx, tx, h)
		return err
	})
	return h, err
}

func insertHost(ctx context.Context, tx *sql.Tx, h Host) (_ Host, err error) {
	if h.ID, err = nextID(ctx, tx, "hosts"); err != nil {
		return h, err
	}
	h.CreatedAt = stored(time.Now())
	args := append(append([]any{h.ID, h.ProtocolID}, hostValues(h)...), millis(h.CreatedAt))
	if _, err := tx.ExecContext(ctx, `INSERT INTO hosts (`+hostColumns+`) VALUES `+placeholders(len(args), 1), args...); err != nil {
		return h, fmt.Errorf("store a host: %w", err)
	}
	return h, nil
}

// EditHost changes a host and returns it.
func (s *Store) EditHost(ctx context.Context, id int64, edit func(*Host) error) (h Host, err error) {
	return h, s.inTransaction(ctx, func(tx *sql.Tx) error {
		if h, err = scanHost(tx.QueryRowContext(ctx, `SELECT `+hostColumns+` FROM hosts WHERE id = ?`, id)); err != nil {
			return orNotFound(err, "host", id)
		}
		if err := edit(&h); err != nil {
			return err
		}
		values := hostValues(h)
		_, err := tx.ExecContext(ctx, `UPDATE hosts SET (enabled, position, remark, address, port, sni, fingerprint, http_host, path, alpn, security) = `+placeholders(len(values), 1)+` WHERE id = ?`, append(values, h.ID)...)
		return err
	})
}

// RemoveHost deletes a host.
func (s *Store) RemoveHost(ctx context.Context, id int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		return orNotFound(tx.QueryRowContext(ctx, `DELETE FROM hosts WHERE id = ? RETURNING id`, id).Scan(&id), "host", id)
	})
}

// Host returns the host of that id.
func (s *Store) Host(ctx context.Context, id int64) (Host, error) {
	h, err := scanHost(s.read.QueryRowContext(ctx, `SELECT `+hostColumns+` FROM hosts WHERE id = ?`, id))
	return h, orNotFound(err, "host", id)
}

// Hosts returns the hosts of an inbound in the order of the links. Inbound 0 means all.
func (s *Store) Hosts(ctx context.Context, protocolID int64) ([]Host, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+hostColumns+` FROM hosts WHERE ? = 0 OR protocol_id = ? ORDER BY protocol_id, position, id`, protocolID, protocolID)
	return collect(rows, err, func(r *sql.Rows) (Host, error) { return scanHost(r) })
}
