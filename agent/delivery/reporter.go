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
	// reportAgain is the shortest time between two reports of the same failure.
	reportAgain = 10 * time.Minute
	// appliedAgain is the shortest time between two reports that the same revision runs.
	// The report is repeated for a Core that asks again for a revision that runs already.
	appliedAgain = time.Minute
	// maxMessage bounds the message of a failure, in bytes. A panic has a long one.
	maxMessage = 4000
	// maxReports bounds how many reports wait while the disk can't be written. The oldest
	// ones are dropped beyond it.
	maxReports = 200
)

// Reporter puts reports of failures and of applied revisions into the outbox, and keeps the
// last error for status.
//
// Failed, Applied and Noted may be called by any goroutine and return at once. Only the
// goroutine of Run waits for the disk, which can be slow or full. Reports that are not
// written yet are lost in a crash.
type Reporter struct {
	outbox  Reports
	written func() // called when a report is in the outbox
	log     *slog.Logger
	wake    chan struct{} // one slot; filled when a report waits

	mu        sync.Mutex           // not held while the outbox is written
	waiting   []*report            // to be written into the outbox, in order
	reported  map[string]time.Time // code and message of a failure → time of its last report
	applied   int64                // the revision that was reported last
	appliedAt time.Time            // when it was
	last      LastError            // the zero value for none
}

// CodeUnreachable is the code of a LastError that comes from being unable to reach Core. No
// report has it.
const CodeUnreachable = "core_unreachable"

// LastError is the latest error that was reported or noted.
type LastError struct {
	Code    string         // one of wire's, CodeUnreachable, or empty where it was only noted
	Message string         // empty for none
	Details map[string]any // of its report; not to be changed
	At      time.Time
}

// report is a body for one of Core's routes, and when it was made.
type report struct {
	at   time.Time
	path string
	body any
}

// NewReporter makes a reporter. written is called after each report that was written into the
// outbox.
func NewReporter(o Reports, written func(), log *slog.Logger) *Reporter {
	return &Reporter{outbox: o, written: written, log: log, wake: make(chan struct{}, 1), reported: map[string]time.Time{}}
}

// Run writes reports into the outbox until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	waits := wait.Doubling(retryMin, retryMax)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for err := r.Write(); err != nil; err = r.Write() {
			pause := waits.NextBackOff()
			r.log.Error("store reports for Core; trying again", logkey.Error, err, logkey.NextIn, pause)
			if !wait.For(ctx, pause) {
				return
			}
		}
		waits.Reset()
	}
}

// Write writes the waiting reports into the outbox, up to the first error. The others go on
// waiting. Run calls it; once Run has returned, another goroutine may.
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
		if len(r.waiting) > 0 && r.waiting[0] == next { // otherwise maxReports dropped it meanwhile
			r.waiting = r.waiting[1:]
		}
		r.mu.Unlock()
		r.written()
	}
}

// Failed reports a failure, and repeats the report of the same one at most every ten minutes.
// code is one of wire's; details may be nil.
func (r *Reporter) Failed(code, message string, details map[string]any) {
	now := time.Now()
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + " …"
	}
	r.mu.Lock()
	r.last = LastError{code, message, details, now}
	key := code + "\x00" + message
	again := now.Sub(r.reported[key]) < reportAgain
	if !again {
		r.reported[key] = now
		r.forgetOldLocked(now)
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.queue(wire.PathError, wire.ErrorRequest{Message: message, Code: code, Details: details})
}

// Applied reports that a revision runs, and repeats the report of the same one at most every
// minute. Failures under another revision are reported as new ones.
func (r *Reporter) Applied(revision int64) {
	now := time.Now()
	r.mu.Lock()
	again := revision == r.applied && now.Sub(r.appliedAt) < appliedAgain
	if !again {
		r.applied, r.appliedAt = revision, now
		clear(r.reported)
	}
	r.mu.Unlock()
	if again {
		return
	}
	r.queue(wire.PathApplied, wire.AppliedRequest{Revision: revision})
}

// Noted keeps an error for status only. It is for errors that Core caused.
func (r *Reporter) Noted(err error) { r.note("", err) }

// Queued keeps a failure for status whose report the caller has put into the outbox, and tells that
// there is one.
func (r *Reporter) Queued(code, message string, details map[string]any) {
	r.mu.Lock()
	r.last = LastError{code, message, details, time.Now()}
	r.mu.Unlock()
	r.written()
}

// Unreachable keeps an error for status only, which comes from being unable to reach Core.
func (r *Reporter) Unreachable(err error) { r.note(CodeUnreachable, err) }

func (r *Reporter) note(code string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = LastError{Code: code, Message: err.Error(), At: time.Now()}
}

// queue hands a report to the goroutine of Run.
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

// forgetOldLocked forgets failures that would be reported again.
func (r *Reporter) forgetOldLocked(now time.Time) {
	for key, at := range r.reported {
		if now.Sub(at) >= reportAgain {
			delete(r.reported, key)
		}
	}
}

// LastError returns the latest error; its message is empty for none.
func (r *Reporter) LastError() LastError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
