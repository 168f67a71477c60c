package nodeapi

import (
	"fmt"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

// sessionEvent is one row of the body, with pointers as in usageEntry.
type sessionEvent struct {
	UserID     *int64  `json:"userId"`
	Protocol   *string `json:"protocol"`
	EventType  *string `json:"eventType"`
	OccurredAt *string `json:"occurredAt"`
	IPAddress  string  `json:"ipAddress"`
}

func (a *API) sessionEvents(r *request) (any, error) {
	var body struct {
		Events *[]sessionEvent `json:"events"`
	}
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	if body.Events == nil {
		return nil, problem.InField("events", "it is missing")
	}
	if err := checkRows(len(*body.Events)); err != nil {
		return nil, err
	}
	events := make([]wire.SessionEvent, len(*body.Events))
	for i, e := range *body.Events {
		f := fields{row: fmt.Sprintf("events[%d].", i)}
		events[i] = wire.SessionEvent{
			UserID: f.id("userId", e.UserID), Protocol: wire.VpnProtocol(f.text("protocol", e.Protocol)),
			EventType: wire.SessionEventType(f.text("eventType", e.EventType)), OccurredAt: f.time("occurredAt", e.OccurredAt), IPAddress: e.IPAddress,
		}
		if t := events[i].EventType; t != wire.Online && t != wire.Offline {
			f.fail("eventType", "want online or offline")
		}
		if e.IPAddress != "" && !isIP(e.IPAddress) {
			f.fail("ipAddress", "it is not an IP address")
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return wire.OK{OK: true}, a.store.AddSessionEvents(r.Context(), r.nodeID, r.idempotencyKey, events)
}
