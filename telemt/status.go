package telemt

import (
	"slices"
	"strings"
	"time"
)

// State tells how an inbound is.
type State string

// The states of an inbound.
const (
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateDegraded State = "degraded" // it serves, and no Telegram centre is reachable
	StateFailed   State = "failed"   // it does not serve; it is tried again
)

// Status tells how the MTProto inbounds are.
type Status struct {
	Inbounds []InboundStatus `json:"inbounds"`
}

// InboundStatus tells how one inbound is. Times are UTC.
type InboundStatus struct {
	Tag       string    `json:"tag"`
	State     State     `json:"state"`
	Port      uint16    `json:"port"`
	Clients   int       `json:"clients"`
	PID       int       `json:"pid,omitempty"`
	Version   string    `json:"version,omitempty"` // of telemt
	StartedAt time.Time `json:"startedAt,omitzero"`
	Restarts  int       `json:"restarts"` // after it ended by itself
	Error     string    `json:"error,omitempty"`
}

// Status returns a snapshot, in the order of the tags.
func (e *Engine) Status() Status {
	status := Status{Inbounds: []InboundStatus{}}
	for _, k := range e.all() {
		status.Inbounds = append(status.Inbounds, k.snapshot())
	}
	slices.SortFunc(status.Inbounds, func(a, b InboundStatus) int { return strings.Compare(a.Tag, b.Tag) })
	return status
}
