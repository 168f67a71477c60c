package agent

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"nodeagent/coreclient/wire"
)

const (
	// reportAgain is how often the same failure is told to Core.
	reportAgain = 10 * time.Minute
	// appliedAgain is how often the same revision is: a Core that asks again
	// and again for what runs has missed the report, or lacks the route.
	appliedAgain = time.Minute
	// maxMessage bounds an error's words, in bytes; a panic's can be long.
	maxMessage = 4000
)

// reporter tells Core of failures and applied revisions, and remembers the last
// error for status.
type reporter struct {
	outbox  outbox
	courier *courier
	log     *slog.Logger

	mu     sync.Mutex
	told   map[string]time.Time // failure → when it was told last
	ran    int64                // the revision that was reported last, and when
	ranAt  time.Time
	last   string
	lastAt time.Time
}

func newReporter(o outbox, c *courier, log *slog.Logger) *reporter {
	return &reporter{outbox: o, courier: c, log: log, told: map[string]time.Time{}}
}

// failed tells Core, once and then at most every ten minutes.
func (r *reporter) failed(code, message string, details map[string]any) {
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
		r.forgetOld(now)
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.queue(wire.PathError, wire.ErrorRequest{Message: message, Code: code, Details: details})
}

// applied tells Core that a revision runs, the same one at most every minute.
// Failures count as new from another one on.
func (r *reporter) applied(revision int64) {
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
func (r *reporter) noted(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.lastAt = err.Error(), time.Now()
}

func (r *reporter) queue(path string, body any) {
	if err := r.outbox.Report(time.Now(), path, body); err != nil {
		r.log.Error("queue report", "path", path, "error", err)
		return
	}
	r.courier.wakeAll()
}

func (r *reporter) forgetOld(now time.Time) {
	for key, at := range r.told {
		if now.Sub(at) >= reportAgain {
			delete(r.told, key)
		}
	}
}

func (r *reporter) lastError() (message string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.lastAt
}
