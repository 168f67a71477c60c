package xray

import (
	"slices"
	"time"

	"nodeagent/xray/state"
)

// progress records which worker serves, what it runs, and what it should run. It is a state
// machine: only its methods write its fields. Only the goroutine of Run uses it.
//
//	        serve                 did, reached
//	none ──────────▶ a worker serves ◀────────┐
//	  ▲                 │    │    └───────────┘
//	  │ died            │    │ serve again: the worker before drains
//	  └─────────────────┘    ▼
//	                     drained workers, which follow wanted until they end
//
// After each step, settle compares running with wanted: what is missing is unrestored, and
// is tried again at retryAt.
type progress struct {
	worker  *workerClient // the worker that serves, or nil
	running state.State   // what worker runs; empty without a worker
	wanted  state.State   // what worker should run
	// unrestored has the tags of the inbounds of wanted that do not run.
	unrestored map[string]bool
	retryAt    time.Time        // when to try again to reach wanted; zero for never
	drained    []*drainedWorker // old workers that serve their open streams until they end
	// rest are adopted workers that still listen, besides worker: a daemon died while one took
	// over from the other. They are drained once worker runs what is wanted.
	rest []*drainedWorker
}

// want makes s the state to reach.
func (p *progress) want(s state.State) { p.wanted = s }

// serve makes w the worker that serves. It runs base and nothing else.
func (p *progress) serve(w *workerClient, base state.Base) {
	p.worker, p.running = w, state.State{Base: base}
}

// serveAgain undoes serve: w serves as before, and runs s.
func (p *progress) serveAgain(w *workerClient, s state.State) { p.worker, p.running = w, s }

// did notes that the worker has done op.
func (p *progress) did(op state.Operation) { p.running = p.running.After(op) }

// reached notes that the worker runs s. Unlike did, it keeps the memory that s shares with
// the document from which s was parsed, so that nothing is stored twice.
func (p *progress) reached(s state.State) { p.running = s }

// didAll notes that the worker has done ops towards the state to, and whether these were all.
func (p *progress) didAll(ops []state.Operation, to state.State, all bool) {
	if all {
		p.reached(to)
		return
	}
	for _, op := range ops {
		p.did(op)
	}
}

// died notes that the worker has ended, and when the next one is to start.
func (p *progress) died(next time.Time) {
	p.worker, p.running, p.retryAt = nil, state.State{}, next
}

// settle notes which inbounds are missing.
func (p *progress) settle() {
	p.unrestored = map[string]bool{}
	for tag := range p.wanted.Inbounds {
		if _, runs := p.running.Inbounds[tag]; !runs {
			p.unrestored[tag] = true
		}
	}
}

// tryAgain sets the time of the next try. A time in the past means at once.
func (p *progress) tryAgain(at time.Time) { p.retryAt = at }

// tried notes that a try begins, or that there is nothing to try.
func (p *progress) tried() { p.retryAt = time.Time{} }

// forget drops the drained workers for which ended returns true.
func (p *progress) forget(ended func(*drainedWorker) bool) {
	p.drained = slices.DeleteFunc(p.drained, ended)
}

// draining notes that w, which runs s, serves its open streams until they end.
func (p *progress) draining(w *workerClient, s state.State) {
	p.drained = append(p.drained, &drainedWorker{w, s})
}
