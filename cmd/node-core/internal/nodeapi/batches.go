package nodeapi

import (
	"fmt"
	"net/netip"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

const (
	maxTag     = 200  // characters
	maxMessage = 8000 // characters of an error
)

func (a *API) usage(r *request) (any, error) {
	var body wire.UsageRequest
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	for i, e := range body.Entries {
		field := fmt.Sprintf("entries[%d].", i)
		switch {
		case e.UserID <= 0:
			return nil, problem.InField(field+"userId", "want a positive number")
		case e.SubscriptionID != nil && *e.SubscriptionID <= 0:
			return nil, problem.InField(field+"subscriptionId", "want a positive number or null")
		case e.NodeProtocolID <= 0:
			return nil, problem.InField(field+"nodeProtocolId", "want a positive number")
		case e.BytesUp < 0:
			return nil, problem.InField(field+"bytesUp", "want a number that is not negative")
		case e.BytesDown < 0:
			return nil, problem.InField(field+"bytesDown", "want a number that is not negative")
		case e.RecordedAt.IsZero():
			return nil, problem.InField(field+"recordedAt", "it is missing")
		}
	}
	return wire.OK{OK: true}, a.store.AddUsage(r.Context(), r.nodeID, r.key, body.Entries)
}

func (a *API) outboundUsage(r *request) (any, error) {
	var body wire.OutboundUsageRequest
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	for i, item := range body.Items {
		field := fmt.Sprintf("items[%d].", i)
		switch {
		case item.Tag == "" || len(item.Tag) > maxTag:
			return nil, problem.InField(field+"tag", fmt.Sprintf("want 1 to %d characters", maxTag))
		case item.BytesUp < 0:
			return nil, problem.InField(field+"bytesUp", "want a number that is not negative")
		case item.BytesDown < 0:
			return nil, problem.InField(field+"bytesDown", "want a number that is not negative")
		}
	}
	return wire.OK{OK: true}, a.store.AddOutboundUsage(r.Context(), r.nodeID, r.key, body.Items)
}

func (a *API) sessionEvents(r *request) (any, error) {
	var body wire.SessionEventsRequest
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	for i, e := range body.Events {
		field := fmt.Sprintf("events[%d].", i)
		switch {
		case e.UserID <= 0:
			return nil, problem.InField(field+"userId", "want a positive number")
		case e.Protocol == "":
			return nil, problem.InField(field+"protocol", "it is missing")
		case e.EventType != wire.Online && e.EventType != wire.Offline:
			return nil, problem.InField(field+"eventType", "want online or offline")
		case e.OccurredAt.IsZero():
			return nil, problem.InField(field+"occurredAt", "it is missing")
		}
		if _, err := netip.ParseAddr(e.IPAddress); e.IPAddress != "" && err != nil {
			return nil, problem.InField(field+"ipAddress", "it is no IP address")
		}
	}
	return wire.OK{OK: true}, a.store.AddSessionEvents(r.Context(), r.nodeID, r.key, body.Events)
}

func (a *API) applied(r *request) (any, error) {
	var body struct {
		Revision *int64 `json:"revision"`
	}
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.Revision == nil {
		return nil, problem.InField("revision", "it is missing")
	}
	a.log.Info("node applied a configuration", "node", r.nodeID, "revision", *body.Revision)
	return wire.OK{OK: true}, a.store.Applied(r.Context(), r.nodeID, r.key, *body.Revision)
}

func (a *API) nodeError(r *request) (any, error) {
	var body wire.ErrorRequest
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.Message == "" || len(body.Message) > maxMessage {
		return nil, problem.InField("message", fmt.Sprintf("want 1 to %d characters", maxMessage))
	}
	a.log.Warn("node reports an error", "node", r.nodeID, "code", body.Code, "message", body.Message)
	return wire.OK{OK: true}, a.store.AddError(r.Context(), r.nodeID, r.key, body)
}
