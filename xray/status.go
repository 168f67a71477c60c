package xray

import (
	"slices"
	"time"

	"nodeagent/internal/logkey"
	"nodeagent/xray/check"
	"nodeagent/xray/ipc"
)

// Status is a snapshot of the engine. Times are UTC.
type Status struct {
	State      string      `json:"state"` // stopped, running, restarting
	PID        int         `json:"pid,omitempty"`
	Version    string      `json:"version,omitempty"`  // of xray-core
	Confined   string      `json:"confined,omitempty"` // what keeps the worker from files and other processes
	StartedAt  time.Time   `json:"startedAt,omitzero"`
	Streams    int64       `json:"streams"`
	Goroutines int         `json:"goroutines,omitempty"`
	Refused    ipc.Refused `json:"refused"`
	// RefusedConnections are the connections that ended before they asked for anything, with
	// garbage or wrong credentials, since the worker started: by the tag of the inbound.
	RefusedConnections map[string]int64 `json:"refusedConnections,omitempty"`
	HeldBack           float64          `json:"heldBackSeconds"` // how long streams waited for their rates, since the worker started
	Restarts           int              `json:"restarts"`        // of the worker, for whatever reason
	LastRestart        string           `json:"lastRestart,omitempty"`
	Draining           int              `json:"draining,omitempty"` // old workers that still serve streams
	// AdoptedAt is when this daemon adopted the worker from the one before; zero for a worker
	// that it has started.
	AdoptedAt time.Time `json:"adoptedAt,omitzero"`
	// UpgradeFailed says why the worker of another version of node-agent goes on; empty where
	// none does.
	UpgradeFailed string          `json:"upgradeFailed,omitempty"`
	Inbounds      []InboundStatus `json:"inbounds"`
	Warnings      []string        `json:"warnings,omitempty"` // settings that work and are not wise
	// Exhausted says that the worker has no file descriptor left, or had none within the
	// last minute; nil otherwise.
	Exhausted *Exhausted `json:"exhausted,omitempty"`
}

// Exhausted is a time in which the worker had no file descriptor left.
type Exhausted struct {
	Message string    `json:"message"` // what it means, and what to do
	Since   time.Time `json:"since"`
	Last    time.Time `json:"last"`
}

// InboundStatus is the status of one inbound.
type InboundStatus struct {
	Tag      string `json:"tag"`
	Protocol string `json:"protocol"`
	State    string `json:"state"` // running, failed
	Clients  int    `json:"clients"`
	Error    string `json:"error,omitempty"`
	// Degraded says why clients are served badly, or not at all, though the inbound runs.
	Degraded string `json:"degraded,omitempty"`
}

// Status returns a snapshot.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status
}

// warnInterval is how often the warnings are computed again, because certificates expire and
// are renewed.
const warnInterval = time.Minute

// warn computes the warnings about the wanted state and logs those that are new.
func (e *Engine) warn() {
	e.sites.Want(e.wanted)
	warnings := slices.Concat(check.Warnings(e.wanted, time.Now()), e.sites.Warnings())
	e.mu.Lock()
	before := e.status.Warnings
	e.status.Warnings = warnings
	e.mu.Unlock()
	for _, text := range warnings {
		if !slices.Contains(before, text) {
			e.deps.Log.Warn("the configuration works and is not wise", logkey.Warning, text)
		}
	}
}

func (e *Engine) publish() {
	var inbounds []InboundStatus
	problems := e.sites.Problems()
	for _, tag := range e.wanted.Tags() {
		in := e.wanted.Inbounds[tag]
		status := InboundStatus{Tag: tag, Protocol: in.VPNProtocol, State: "running", Clients: len(in.Clients)}
		if _, runs := e.running.Inbounds[tag]; !runs {
			status.State = "failed"
		} else if problem := problems[tag]; problem != "" {
			status.Degraded = problem
		}
		inbounds = append(inbounds, status)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.Inbounds = inbounds
	e.status.Draining = len(e.drained)
	switch {
	case e.worker != nil:
		e.status.State, e.status.PID = "running", e.worker.process.PID()
		e.status.Confined = e.worker.confined
		e.status.Version, e.status.StartedAt = e.worker.version, e.worker.started.UTC()
		e.status.AdoptedAt = e.worker.adoptedAt
	case len(e.wanted.Inbounds) > 0:
		e.status.State, e.status.PID = "restarting", 0
	default:
		e.status.State, e.status.PID = "stopped", 0
	}
}
