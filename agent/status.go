package agent

import (
	"time"

	"nodeagent/store"
	"nodeagent/telemt"
	"nodeagent/xray"
)

// Status is what the running daemon tells of itself. Times are UTC.
type Status struct {
	Version  string     `json:"version"`
	NodeID   string     `json:"nodeId"`
	Core     CoreStatus `json:"core"`
	Revision Revisions  `json:"revision"`
	Engines  Engines    `json:"engines"`
	Online   int        `json:"clientsOnline"` // clients and addresses that Core was told of
	// Traffic is what clients moved since the daemon started, by engine.
	Traffic map[string]Traffic `json:"traffic"`
	Outbox  store.Waiting      `json:"outbox"`
	Slots   int                `json:"counterSlots"`
	Error   *LastError         `json:"lastError,omitempty"`
}

// CoreStatus tells how the node stands with Core.
type CoreStatus struct {
	URL           string    `json:"url"`
	LastHeartbeat time.Time `json:"lastHeartbeat,omitzero"` // the last good one
	AgeSeconds    *float64  `json:"lastHeartbeatAgeSeconds,omitempty"`
	Rejected      string    `json:"rejected,omitempty"` // why Core does not take the node's key
	SkewSeconds   float64   `json:"clockSkewSeconds"`   // this host's clock less Core's
}

// Revisions tells which configuration runs and which Core wants; nil for none.
type Revisions struct {
	Running *int64 `json:"running"`
	Wanted  *int64 `json:"wanted"`
}

// Engines has the engines' own words.
type Engines struct {
	Xray    xray.Status   `json:"xray"`
	MTProto telemt.Status `json:"mtproto"`
}

// Traffic is bytes, seen from the client.
type Traffic struct {
	Up   uint64 `json:"up"`
	Down uint64 `json:"down"`
}

// LastError is the last thing that went wrong, over or not.
type LastError struct {
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// Status returns a snapshot; the caller adds version, node id and address.
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
	a.sync.mu.Lock()
	status.Revision = Revisions{Running: a.sync.running, Wanted: a.sync.wanted}
	a.sync.mu.Unlock()
	if message, at := a.reporter.LastError(); message != "" {
		status.Error = &LastError{Message: message, At: at.UTC()}
	}
	return status, nil
}
