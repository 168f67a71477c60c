package delivery

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
	"nodeagent/internal/wait"
)

const (
	// reportAgain is how often the same failure is told to Core.
	reportAgain = 10 * time.Minute
	// appliedAgain is how often the same revision is: a Core that asks again
	// and again for what runs has missed the report, or lacks the route.
	appliedAgain = time.Minute
	// maxMessage bounds an error's words, in bytes; a panic's can be long.
	maxMessage = 4000
	// maxReports is how many reports wait for a disk that can't be written, before
	// the oldest are dropped.
	maxReports = 200
)

// reporter tells Core of failures and applied revisions, and remembers the last
// error for status. Whoever tells it something goes on at once: the disk, which may
// be slow or full, is its own goroutine's business.
type Reporter struct {
	outbox  Reports
	written func() // a report is in the outbox
	log     *slog.Logger
	wake    chan struct{} // of one slot: something waits

	mu      sync.Mutex
	waiting []*report            // to be written into the outbox, in order
	told    map[string]time.Time // failure → when it was told last
	ran     int64                // the revision that was reported last, and when
	ranAt   time.Time
	last    string
	lastAt  time.Time
}

// report is a body for a route of Core's.
type report struct {
	at   time.Time
	path string
	body any
}

func NewReporter(o Reports, written func(), log *slog.Logger) *Reporter {
	return &Reporter{outbox: o, written: written, log: log, wake: make(chan struct{}, 1), told: map[string]time.Time{}}
}

// run writes what waits until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for err := r.Write(); err != nil; err = r.Write() {
			failures++
			pause := min(courierMin<<min(failures-1, 10), courierMax)
			r.log.Error("keep reports for Core; trying again", logkey.Error, err, logkey.NextIn, pause)
			if !wait.For(ctx, pause) {
				return
			}
		}
		failures = 0
	}
}

// write moves what waits into the outbox, until something fails. One at a time.
func (r *Reporter) Write() error {
	for {
		r.mu.Lock()
		waiting := r.waiting
		r.mu.Unlock()
		if len(waiting) == 0 {
			return nil
		}
		next := waiting[0]
		if err := r.outbox.Report(next.at, next.path, next.body); err != nil {
			return err
		}
		r.mu.Lock()
		if len(r.waiting) > 0 && r.waiting[0] == next { // else it was dropped meanwhile
			r.waiting = r.waiting[1:]
		}
		r.mu.Unlock()
		r.written()
	}
}

// failed tells Core, once and then at most every ten minutes.
func (r *Reporter) Failed(code, message string, details map[string]any) {
	now := time.Now()
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + " …"
	}
	r.mu.Lock()
	r.last, r.lastAt = message, now
	key := code + "\x00" + message
	again := now.Sub(r.told[key]) < reportAgain
	if !again {
		r.told[key] = now
		r.forgetOldLocked(now)
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.queue(wire.PathError, wire.ErrorRequest{Message: message, Code: code, Details: details})
}

// applied tells Core that a revision runs, the same one at most every minute.
// Failures count as new from another one on.
func (r *Reporter) Applied(revision int64) {
	now := time.Now()
	r.mu.Lock()
	again := revision == r.ran && now.Sub(r.ranAt) < appliedAgain
	if !again {
		r.ran, r.ranAt = revision, now
		clear(r.told)
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.queue(wire.PathApplied, wire.AppliedRequest{Revision: revision})
}

// noted keeps an error for status without telling Core, which caused it or
// can't be told.
func (r *Reporter) Noted(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.lastAt = err.Error(), time.Now()
}

func (r *Reporter) queue(path string, body any) {
	r.mu.Lock()
	if len(r.waiting) == maxReports {
		r.waiting = r.waiting[1:]
	}
	r.waiting = append(r.waiting, &report{time.Now(), path, body})
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reporter) forgetOldLocked(now time.Time) {
	for key, at := range r.told {
		if now.Sub(at) >= reportAgain {
			delete(r.told, key)
		}
	}
}

func (r *Reporter) LastError() (message string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.lastAt
}
