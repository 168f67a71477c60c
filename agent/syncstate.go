package agent

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// syncState is which configuration runs, and which one Core wants. syncLoop, apply, rollBack
// and restore write it; heartbeats, reports and status read it. Its methods may be called by
// any goroutine.
type syncState struct {
	mu      sync.Mutex        // no other lock is taken while it is held
	running *int64            // revision; nil where none runs
	wanted  *int64            // revision; nil before Core sent one
	etag    string            // of the running configuration
	hash    [sha256.Size]byte // of the running configuration's text: a Core may send no ETags
	refused *refusal          // nil for none
}

// refusal is a configuration that Core sent and that could not be applied. It is not changed
// once it is in a syncState.
type refusal struct {
	etag    string
	body    []byte
	hash    [sha256.Size]byte
	final   bool // another try cannot help
	retryAt time.Time
	waits   *backoff.ExponentialBackOff // between tries
	parts   []RefusedPart               // with since when; none where the whole of it is refused
	reason  string                      // why it could not be applied
	since   time.Time                   // when it was tried first
	crashes int                         // how often the worker crashed while it was applied
}

// refusedConfig returns the configuration that could not be applied, nil for none.
func (s *syncState) refusedConfig() *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// setRefused keeps a configuration that could not be applied; nil for none.
func (s *syncState) setRefused(r *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = r
}

// runningRevision returns the revision that runs, nil for none.
func (s *syncState) runningRevision() *int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// setRunning notes that the revision runs, and that Core wants it.
// body is nil where its text is not at hand, for a Core that sends ETags.
func (s *syncState) setRunning(revision int64, etag string, body []byte) {
	var hash [sha256.Size]byte
	if body != nil {
		hash = sha256.Sum256(body)
	}
	s.setRunningHash(revision, etag, hash)
}

// setRunningHash is setRunning for a text of which the hash is at hand; zero where it is not.
func (s *syncState) setRunningHash(revision int64, etag string, hash [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.wanted, s.etag, s.hash = &revision, &revision, etag, hash
}

// runningConfig returns the ETag of the running configuration, and the hash of its text.
func (s *syncState) runningConfig() (etag string, hash [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etag, s.hash
}

// setWanted notes that Core wants the revision.
func (s *syncState) setWanted(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = &revision
}

func (s *syncState) revisions() Revisions {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Revisions{Running: s.running, Wanted: s.wanted}
}
