package agent

import (
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
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
	// Refused has the parts of Core's newest configuration that do not run as it wants them.
	Refused []RefusedPart `json:"refused,omitempty"`
	Engines Engines       `json:"engines"`
	// Online counts the pairs of client and address that Core was told are online.
	Online int `json:"clientsOnline"`
	// Traffic is what clients moved since the daemon started, by engine (store.EngineXray,
	// store.EngineTelemt).
	Traffic map[string]Traffic `json:"traffic"`
	Outbox  store.Waiting      `json:"outbox"`
	Slots   int                `json:"counterSlots"` // that have an owner
	// EndedByGrant counts the persons that are refused because what Core granted them is used up
	// or has expired.
	EndedByGrant int `json:"clientsEndedByGrant"`
	// Problems are what is wrong now, the worst first.
	Problems []Problem  `json:"problems"`
	Error    *LastError `json:"lastError,omitempty"`
}

// RefusedPart is a part of the configuration that does not run as Core wants it. Since is
// when it was refused first for that reason.
type RefusedPart struct {
	Kind   fault.Kind `json:"kind"`
	Tag    string     `json:"tag,omitempty"`
	Client string     `json:"client,omitempty"`
	Reason string     `json:"reason"`
	Retry  bool       `json:"retry"` // it is tried again by itself
	Since  time.Time  `json:"since"`
}

// refusedParts returns the parts for status. A part that before has with the same reason
// keeps its time.
func refusedParts(faults []*fault.Fault, before *refusal, now time.Time) []RefusedPart {
	since := map[RefusedPart]time.Time{}
	if before != nil {
		for _, p := range before.parts {
			at := p.Since
			p.Since = time.Time{}
			since[p] = at
		}
	}
	parts := make([]RefusedPart, 0, len(faults))
	for _, f := range faults {
		p := RefusedPart{Kind: f.Kind, Tag: f.Tag, Client: f.Client, Reason: f.Message, Retry: f.Retry}
		at, known := since[p]
		if !known {
			at = now.UTC()
		}
		p.Since = at
		parts = append(parts, p)
	}
	return parts
}

// CoreStatus is what the daemon knows of Core.
type CoreStatus struct {
	URL string `json:"url"`
	// Identity is what Core said of itself last; empty for a Core that does not say.
	Identity      wire.CoreIdentity `json:"identity"`
	LastHeartbeat time.Time         `json:"lastHeartbeat,omitzero"` // that Core answered
	AgeSeconds    *float64          `json:"lastHeartbeatAgeSeconds,omitempty"`
	Rejected      string            `json:"rejected,omitempty"` // why Core does not accept the node's key
	// AskedAt is when the last heartbeat was sent. Core may hold it, so that it can be
	// younger than LastHeartbeat.
	AskedAt     time.Time `json:"askedAt,omitzero"`
	SkewSeconds float64   `json:"clockSkewSeconds"` // this host's clock minus Core's
	// NotCore has the routes on which something else than Core answers now.
	NotCore []NotCore `json:"notCore,omitempty"`
}

// NotCore is what answers on one of Core's routes in the place of Core, or that Core answered
// that it did not take a request. What waits for Core is kept meanwhile.
type NotCore struct {
	Path   string    `json:"path"`
	Since  time.Time `json:"since"`
	Answer string    `json:"answer"` // status, content type, and how the body begins
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

// LastError is the latest error.
type LastError struct {
	Over    bool      `json:"over"` // its cause is gone
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
	status := Status{Engines: Engines{Xray: a.xray.Status(), MTProto: a.mtproto.Status()}, Online: len(online), Outbox: waiting, Slots: len(a.store.Slots()), EndedByGrant: a.grants.ended(a.counters, time.Now())}
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
	for _, s := range a.link.Strange() {
		status.Core.NotCore = append(status.Core.NotCore, NotCore{s.Path, s.Since.UTC(), s.Answer.Error()})
	}
	status.Core.SkewSeconds = a.core.Skew().Seconds()
	status.Revision = a.sync.revisions()
	if refused := a.sync.refusedConfig(); refused != nil {
		status.Refused = refused.parts
	}
	if asked := a.link.LastAsked(); !asked.IsZero() {
		status.Core.AskedAt = asked.UTC()
	}
	if last := a.reporter.LastError(); last.Message != "" {
		status.Error = &LastError{Message: last.Message, At: last.At.UTC(), Over: a.over(last, status)}
	}
	status.Problems = a.problems(status)
	return status, nil
}
