package nodeapi

import (
	"fmt"
	"net/netip"
	"time"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
)

const (
	maxTag     = 200  // bytes of a tag, and of any other short text
	maxMessage = 8000 // bytes of an error that are kept
	// maxBytes bounds one row: a petabyte in a minute is a broken counter, and
	// sums of such rows would overflow.
	maxBytes = 1 << 50
)

// The bodies as they are read: pointers tell a member that is missing from one
// that is zero, and times are text until their row is known.
type (
	usageEntry struct {
		UserID         *int64  `json:"userId"`
		SubscriptionID *int64  `json:"subscriptionId"`
		NodeProtocolID *int64  `json:"nodeProtocolId"`
		BytesUp        *int64  `json:"bytesUp"`
		BytesDown      *int64  `json:"bytesDown"`
		RecordedAt     *string `json:"recordedAt"`
	}
	outboundItem struct {
		Tag       *string `json:"tag"`
		BytesUp   *int64  `json:"bytesUp"`
		BytesDown *int64  `json:"bytesDown"`
	}
	sessionEvent struct {
		UserID     *int64  `json:"userId"`
		Protocol   *string `json:"protocol"`
		EventType  *string `json:"eventType"`
		OccurredAt *string `json:"occurredAt"`
		IPAddress  string  `json:"ipAddress"`
	}
)

// fields checks the members of one row and remembers the first that is wrong.
type fields struct {
	row string // as entries[3].
	err error
}

func (f *fields) fail(name, words string) {
	if f.err == nil {
		f.err = problem.InField(f.row+name, words)
	}
}

func (f *fields) number(name string, v *int64, least, most int64) int64 {
	switch {
	case v == nil:
		f.fail(name, "it is missing")
		return 0
	case *v < least || *v > most:
		f.fail(name, fmt.Sprintf("%d is not from %d to %d", *v, least, most))
	}
	return *v
}

func (f *fields) id(name string, v *int64) int64    { return f.number(name, v, 1, 1<<62) }
func (f *fields) bytes(name string, v *int64) int64 { return f.number(name, v, 0, maxBytes) }

func (f *fields) text(name string, v *string) string {
	if v == nil || *v == "" || len(*v) > maxTag {
		f.fail(name, fmt.Sprintf("want 1 to %d characters", maxTag))
		return ""
	}
	return *v
}

// time reads RFC 3339. Years that no clock shows are refused: they could not be
// written again.
func (f *fields) time(name string, v *string) time.Time {
	if v == nil {
		f.fail(name, "it is missing")
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *v)
	if t = t.UTC(); err != nil || t.Year() < 2000 || t.Year() > 2200 {
		f.fail(name, fmt.Sprintf("%.40q is no time of RFC 3339, as 2026-01-02T15:04:00Z", *v))
	}
	return t
}

func (a *API) usage(r *request) (any, error) {
	var body struct {
		Entries *[]usageEntry `json:"entries"`
	}
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	if body.Entries == nil {
		return nil, problem.InField("entries", "it is missing")
	}
	entries := make([]wire.UsageEntry, len(*body.Entries))
	for i, e := range *body.Entries {
		f := fields{row: fmt.Sprintf("entries[%d].", i)}
		entries[i] = wire.UsageEntry{
			UserID: f.id("userId", e.UserID), SubscriptionID: e.SubscriptionID, NodeProtocolID: f.id("nodeProtocolId", e.NodeProtocolID),
			BytesUp: f.bytes("bytesUp", e.BytesUp), BytesDown: f.bytes("bytesDown", e.BytesDown), RecordedAt: f.time("recordedAt", e.RecordedAt),
		}
		if e.SubscriptionID != nil {
			f.id("subscriptionId", e.SubscriptionID)
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return wire.OK{OK: true}, a.store.AddUsage(r.Context(), r.nodeID, r.key, entries)
}

func (a *API) outboundUsage(r *request) (any, error) {
	var body struct {
		Items *[]outboundItem `json:"items"`
	}
	if err := readBody(r, &body, maxBatchBody); err != nil {
		return nil, err
	}
	if body.Items == nil {
		return nil, problem.InField("items", "it is missing")
	}
	items := make([]wire.OutboundUsageItem, len(*body.Items))
	for i, item := range *body.Items {
		f := fields{row: fmt.Sprintf("items[%d].", i)}
		items[i] = wire.OutboundUsageItem{
			Tag: f.text("tag", item.Tag), BytesUp: f.bytes("bytesUp", item.BytesUp), BytesDown: f.bytes("bytesDown", item.BytesDown),
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return wire.OK{OK: true}, a.store.AddOutboundUsage(r.Context(), r.nodeID, r.key, items)
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
			f.fail("ipAddress", "it is no IP address")
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	return wire.OK{OK: true}, a.store.AddSessionEvents(r.Context(), r.nodeID, r.key, events)
}

func (a *API) applied(r *request) (any, error) {
	var body struct {
		Revision *int64 `json:"revision"`
	}
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	var f fields
	if revision := f.number("revision", body.Revision, 0, 1<<62); f.err == nil {
		a.log.Info("node applied a configuration", "node", r.nodeID, "revision", revision)
		return wire.OK{OK: true}, a.store.Applied(r.Context(), r.nodeID, r.key, revision)
	}
	return nil, f.err
}

func (a *API) nodeError(r *request) (any, error) {
	var body wire.ErrorRequest
	if err := readBody(r, &body, maxSmallBody); err != nil {
		return nil, err
	}
	if body.Message == "" {
		return nil, problem.InField("message", "it is missing")
	}
	if len(body.Code) > maxTag {
		return nil, problem.InField("code", fmt.Sprintf("want at most %d characters", maxTag))
	}
	body.Message = body.Message[:min(len(body.Message), maxMessage)]
	a.log.Warn("node reports an error", "node", r.nodeID, "code", body.Code, "message", body.Message)
	return wire.OK{OK: true}, a.store.AddError(r.Context(), r.nodeID, r.key, body)
}

func isIP(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}
