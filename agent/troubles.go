package agent

import (
	"sync"
	"time"
)

// trouble is something that does not work now, and that a later success ends.
type trouble string

const (
	troubleHeartbeat trouble = "heartbeat"           // Core gives no answer to it
	troubleFetch     trouble = "fetch configuration" // Core gives none, and answers heartbeats
	troubleAccount   trouble = "account traffic"     // the store could not be written
	troubleRestore   trouble = "restore"             // the store's configuration could not be read
	troubleClock     trouble = "clock"               // this host's clock is off
	troubleKey       trouble = "key"                 // Core does not accept it
	troubleUpgrade   trouble = "upgrade"             // another version of the program can't take over
	troubleMachine   trouble = "machine"             // the state belongs to another one
	troubleDelta     trouble = "delta"               // the last one that Core sent could not be used
)

// troubles is what does not work now, why, and since when. Its methods may be called by any
// goroutine.
type troubles struct {
	mu  sync.Mutex // no other lock is taken while it is held
	all map[trouble]lasting
}

// lasting is one trouble that goes on.
type lasting struct {
	since   time.Time
	message string // of the latest error
}

func newTroubles() *troubles { return &troubles{all: map[trouble]lasting{}} }

// note notes that the trouble goes on, or that it is over where err is nil. began tells that
// it was not there before.
func (t *troubles) note(what trouble, err error) (began bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, lasts := t.all[what]
	if err == nil {
		delete(t.all, what)
		return false
	}
	if !lasts {
		before.since = time.Now()
	}
	before.message = err.Error()
	t.all[what] = before
	return !lasts
}

// has returns the trouble, and whether it goes on.
func (t *troubles) has(what trouble) (lasting, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, lasts := t.all[what]
	return one, lasts
}
