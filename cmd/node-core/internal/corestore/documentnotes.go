package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// note is the document that was made for a node's revision.
type note struct {
	node, revision int64
	etag           string
}

// NoteDocument stores the ETag of the document that was made for the node's revision.
func (s *Store) NoteDocument(ctx context.Context, nodeID, revision int64, etag string) error {
	return s.made.add(ctx, note{nodeID, revision, etag}, s.storeDocumentNotes)
}

func (s *Store) storeDocumentNotes(ctx context.Context, notes []note) error {
	slices.SortFunc(notes, func(a, b note) int { return cmp.Compare(a.node, b.node) })
	err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
		// An edit that raises the revisions of nodes locks the same rows in another order.
		if err := s.dialect.lockEdits(ctx, tx); err != nil {
			return err
		}
		update, err := tx.PrepareContext(ctx, `UPDATE nodes SET document_etag = ?1, document_revision = ?2
			WHERE id = ?3 AND document_revision <= ?2 AND document_etag != ?1`)
		if err != nil {
			return err
		}
		defer update.Close()
		for _, n := range notes {
			if _, err := update.ExecContext(ctx, n.etag, n.revision, n.node); err != nil {
				return err
			}
		}
		return nil
	})
	for _, n := range notes {
		s.known.forgetBeats(n.node)
	}
	if err != nil {
		return fmt.Errorf("store which documents were made: %w", err)
	}
	return nil
}
