package agent

import (
	"time"

	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray"
)

// Status is a snapshot of the running daemon. Times are UTC.
type Status struct {
	Version  string     `json:"version"`
	NodeID   string     `json:"nodeId"`
	Core     CoreStatus `json:"core"`
	Revision Revisions  `json:"revision"`
	Engines  Engines    `json:"engines"`
	// Online counts the pairs of client and address that Core was told are online.
	Online int `json:"clientsOnline"`
	// Traffic is what clients moved since the daemon started, by engine (store.EngineXray,
	// store.EngineTelemt).
	Traffic map[string]Traffic `json:"traffic"`
	Outbox  store.Waiting      `json:"outbox"`
	Slots   int                `json:"counterSlots"` // that have an owner
	Error   *LastError         `json:"lastError,omitempty"`
}

// CoreStatus is what the daemon knows of Core.
type CoreStatus struct {
	URL           string    `json:"url"`
	LastHeartbeat time.Time `json:"lastHeartbeat,omitzero"` // that Core answered
	AgeSeconds    *float64  `json:"lastHeartbeatAgeSeconds,omitempty"`
	Rejected      string    `json:"rejected,omitempty"` // why Core does not accept the node's key
	SkewSeconds   float64   `json:"clockSkewSeconds"`   // this host's clock minus Core's
}

// Revisions are the configuration that runs and the one that Core wants; nil for none.
type Revisions struct {
	Running *int64 `json:"running"`
	Wanted  *int64 `json:"wanted"`
}

// Engines is the status of each engine, as it gives it.
type Engines struct {
	Xray    xray.Status   `json:"xray"`
	MTProto telemt.Status `json:"mtproto"`
}

// Traffic is in bytes, as the client sees it: Up is what it sent.
type Traffic struct {
	Up   uint64 `json:"up"`
	Down uint64 `json:"down"`
}

// LastError is the latest error, whether it still exists or not.
type LastError struct {
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// Status returns a snapshot. The caller adds Version, NodeID and Core.URL.
func (a *Agent) Status() (Status, error) {
	waiting, err := a.store.Waiting()
	if err != nil {
		return Status{}, err
	}
	online, err := a.store.Online()
	if err != nil {
		return Status{}, err
	}
	status := Status{Engines: Engines{Xray: a.xray.Status(), MTProto: a.mtproto.Status()}, Online: len(online), Outbox: waiting, Slots: len(a.store.Slots())}
	status.Traffic = map[string]Traffic{}
	for _, engine := range []string{store.EngineXray, store.EngineTelemt} {
		up, down := a.store.Accounted(engine)
		status.Traffic[engine] = Traffic{Up: up, Down: down}
	}
	lastGood, rejected := a.link.State()
	if !lastGood.IsZero() {
		status.Core.LastHeartbeat = lastGood.UTC()
		status.Core.AgeSeconds = new(time.Since(lastGood).Seconds())
	}
	if rejected != nil {
		status.Core.Rejected = rejected.Error()
	}
	status.Core.SkewSeconds = a.core.Skew().Seconds()
	status.Revision = a.sync.revisions()
	if message, at := a.reporter.LastError(); message != "" {
		status.Error = &LastError{Message: message, At: at.UTC()}
	}
	return status, nil
}
