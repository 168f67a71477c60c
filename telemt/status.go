package telemt

import "time"

// State is how an inbound is.
type State string

// The states of an inbound.
const (
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateDegraded State = "degraded" // it is served, but no Telegram data centre is reachable
	StateFailed   State = "failed"   // it is not served; its start is tried again
)

// Status says how the MTProto inbounds are.
type Status struct {
	Inbounds []InboundStatus `json:"inbounds"`
	// Warnings are sentences about what works and is not wise.
	Warnings []string `json:"warnings,omitempty"`
}

// InboundStatus says how one inbound is. Times are UTC.
type InboundStatus struct {
	Tag       string    `json:"tag"`
	State     State     `json:"state"`
	Port      uint16    `json:"port"`
	Clients   int       `json:"clients"`
	PID       int       `json:"pid,omitempty"`      // 0 if no telemt runs
	Version   string    `json:"version,omitempty"`  // of telemt, as in 3.4.25
	StartedAt time.Time `json:"startedAt,omitzero"` // of telemt
	Restarts  int       `json:"restarts"`           // of telemt after it ended by itself
	Error     string    `json:"error,omitempty"`    // why it is degraded or failed
	// StaleUntil is when telemt is restarted at the latest, since it cannot take a change
	// without that; zero where it has taken everything.
	StaleUntil time.Time `json:"-"`
	// BuiltInDomain is true where the inbound has fake TLS and no domain for it.
	BuiltInDomain bool `json:"-"`
	// Missing is true where it failed because there is no telemt that the node can run.
	Missing bool `json:"-"`
}
