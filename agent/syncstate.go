package agent

import (
	"crypto/sha256"
	"sync"
	"time"
)

// syncState is what heartbeats and status tell of revisions.
type syncState struct {
	mu      sync.Mutex
	running *int64 // revision; nil where none runs
	wanted  *int64
	etag    string            // of the running configuration
	body    [sha256.Size]byte // hash of it: a Core may know no ETags

	refused *refusal
}

// refusal is a configuration that was fetched and did not become the running
// one.
type refusal struct {
	etag    string
	body    []byte
	hash    [sha256.Size]byte
	final   bool // it is wrong in itself, so trying again is no use
	retryAt time.Time
	wait    time.Duration
	crashes int // how often the worker ended over it
}

func (s *syncState) refusedConfig() *refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

func (s *syncState) setRefused(r *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = r
}

func (s *syncState) runningRevision() *int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *syncState) setRunning(revision int64, etag string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.wanted, s.etag, s.body = &revision, &revision, etag, sha256.Sum256(body)
}

// runningConfig tells what runs: its ETag and the hash of its text.
func (s *syncState) runningConfig() (etag string, body [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etag, s.body
}

func (s *syncState) setWanted(revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = &revision
}
