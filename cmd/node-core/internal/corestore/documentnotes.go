package corestore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
)

// noteQueue stores in one transaction what many nodes wait for: after a change of all of them, each
// would have one of its own, which waits for the disk.
type noteQueue struct {
	mu      sync.Mutex
	next    *noteBatch // that is not being stored yet; nil for none
	storing sync.Mutex // held while a batch is stored
}

type noteBatch struct {
	notes []note
	done  chan struct{} // closed when err is set
	err   error
}

// note is the document that was made for a node's revision.
type note struct {
	node, revision int64
	etag           string
}

// NoteDocument stores the ETag of the document that was made for the node's revision.
func (s *Store) NoteDocument(ctx context.Context, nodeID, revision int64, etag string) error {
	q := &s.made
	q.mu.Lock()
	batch := q.next
	first := batch == nil
	if first {
		batch = &noteBatch{done: make(chan struct{})}
		q.next = batch
	}
	batch.notes = append(batch.notes, note{nodeID, revision, etag})
	q.mu.Unlock()
	if !first {
		<-batch.done
		return batch.err
	}
	// While the batch before is stored, others join this one.
	q.storing.Lock()
	defer q.storing.Unlock()
	q.mu.Lock()
	q.next = nil
	q.mu.Unlock()
	batch.err = s.storeDocumentNotes(context.WithoutCancel(ctx), batch.notes)
	close(batch.done)
	return batch.err
}

func (s *Store) storeDocumentNotes(ctx context.Context, notes []note) error {
	slices.SortFunc(notes, func(a, b note) int { return cmp.Compare(a.node, b.node) })
	err := s.retried(ctx, s.write, func(tx *sql.Tx) error {
		// An edit that raises the revisions of nodes locks the same rows in another order.
		if err := s.dialect.lockEdits(ctx, tx); err != nil {
			return err
		}
		for _, n := range notes {
			if _, err := tx.ExecContext(ctx, `UPDATE nodes SET document_etag = ?1, document_revision = ?2
				WHERE id = ?3 AND document_revision <= ?2 AND document_etag != ?1`, n.etag, n.revision, n.node); err != nil {
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
