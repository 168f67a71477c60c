package corestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"nodeagent/coreapi"
)

// Template is an inbound that is used on many nodes.
type Template = coreapi.Template

// AddTemplate adds a template; ErrExists if another one has the name.
func (s *Store) AddTemplate(ctx context.Context, t Template) (Template, error) {
	err := s.inTransaction(ctx, func(tx *sql.Tx) (err error) {
		if t.ID, err = nextID(ctx, tx, "protocol_templates"); err != nil {
			return err
		}
		link, err := json.Marshal(t.Link)
		if err != nil {
			return fmt.Errorf("encode link hints: %w", err)
		}
		t.CreatedAt = stored(time.Now())
		added, err := tx.ExecContext(ctx, `INSERT INTO protocol_templates (id, name, note, protocol, listen, port, config, link, created_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			t.ID, t.Name, t.Note, t.Protocol, t.Listen, t.Port, string(t.Config), string(link), millis(t.CreatedAt))
		if err != nil {
			return err
		}
		if n, err := added.RowsAffected(); err != nil || n == 1 {
			return err
		}
		return fmt.Errorf("template %q: %w", t.Name, ErrExists)
	})
	return t, err
}

// UpdateTemplate stores a template that was edited, and the inbounds that have it, all or
// nothing; ErrChanged where the template before, one of the inbounds, or which inbounds have the
// template is not as it was read. It raises the revision of the nodes to which the change is one,
// and returns them.
func (s *Store) UpdateTemplate(ctx context.Context, before, t Template, uses []EditedProtocol) ([]int64, error) {
	return s.updateProtocols(ctx, uses, func(tx *sql.Tx) error {
		if err := templateIs(ctx, tx, before); err != nil {
			return err
		}
		now, err := usesOf(ctx, tx, t.ID)
		if err != nil {
			return err
		}
		same := func(p Protocol, edited EditedProtocol) bool { return p.ID == edited.Before.ID }
		if !slices.EqualFunc(now, uses, same) {
			return fmt.Errorf("the protocols with template %s: %w", t.Name, ErrChanged)
		}
		if err := nameIsFree(ctx, tx, "protocol_templates", t.Name, t.ID); err != nil {
			return fmt.Errorf("template %q: %w", t.Name, err)
		}
		link, err := json.Marshal(t.Link)
		if err != nil {
			return fmt.Errorf("encode link hints: %w", err)
		}
		_, err = tx.ExecContext(ctx, `UPDATE protocol_templates SET name = ?, note = ?, listen = ?, port = ?, config = ?, link = ? WHERE id = ?`,
			t.Name, t.Note, t.Listen, t.Port, string(t.Config), string(link), t.ID)
		return err
	})
}

// templateIs returns ErrChanged where the template is not as it was read.
func templateIs(ctx context.Context, tx *sql.Tx, read Template) error {
	now, err := scanTemplate(tx.QueryRowContext(ctx, `SELECT `+templateColumns+` FROM protocol_templates t WHERE t.id = ?`, read.ID))
	if err != nil {
		return orNotFound(err, "template", read.Name)
	}
	now.Uses = read.Uses
	if !reflect.DeepEqual(now, read) {
		return fmt.Errorf("template %s: %w", read.Name, ErrChanged)
	}
	return nil
}

// RemoveTemplate deletes a template that no inbound has (ErrInUse).
func (s *Store) RemoveTemplate(ctx context.Context, id int64) error {
	return s.inTransaction(ctx, func(tx *sql.Tx) error {
		var uses int64
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM node_protocols WHERE template_id = ?`, id).Scan(&uses); err != nil {
			return err
		}
		if uses > 0 {
			return fmt.Errorf("template: %w: %d protocols have it; remove them first", ErrInUse, uses)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM protocol_templates WHERE id = ?`, id)
		return err
	})
}

const templateColumns = `t.id, t.name, t.note, t.protocol, t.listen, t.port, t.config, t.link, t.created_at, (SELECT count(*) FROM node_protocols p WHERE p.template_id = t.id)`

// Template finds a template by name or, if none has that name, by id.
func (s *Store) Template(ctx context.Context, nameOrID string) (Template, error) {
	t, err := scanTemplate(s.read.QueryRowContext(ctx, `SELECT `+templateColumns+` FROM protocol_templates t WHERE t.name = ? OR t.id = ?
		ORDER BY t.name = ? DESC LIMIT 1`, nameOrID, parseID(nameOrID), nameOrID))
	return t, orNotFound(err, "template", nameOrID)
}

// Templates returns all templates.
func (s *Store) Templates(ctx context.Context) ([]Template, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+templateColumns+` FROM protocol_templates t ORDER BY t.id`)
	return collect(rows, err, func(r *sql.Rows) (Template, error) { return scanTemplate(r) })
}

// UsesOf returns the inbounds that have a template.
func (s *Store) UsesOf(ctx context.Context, templateID int64) ([]Protocol, error) {
	return usesOf(ctx, s.read, templateID)
}

func usesOf(ctx context.Context, db queryer, templateID int64) ([]Protocol, error) {
	rows, err := db.QueryContext(ctx, `SELECT `+protocolColumns+` FROM node_protocols WHERE template_id = ? AND template_id != 0 ORDER BY id`, templateID)
	return collect(rows, err, func(r *sql.Rows) (Protocol, error) { return scanProtocol(r) })
}

func scanTemplate(row interface{ Scan(...any) error }) (t Template, err error) {
	var created int64
	var config, link string
	if err := row.Scan(&t.ID, &t.Name, &t.Note, &t.Protocol, &t.Listen, &t.Port, &config, &link, &created, &t.Uses); err != nil {
		return t, err
	}
	t.Config, t.CreatedAt = json.RawMessage(config), time.UnixMilli(created).UTC()
	return t, json.Unmarshal([]byte(link), &t.Link)
}
