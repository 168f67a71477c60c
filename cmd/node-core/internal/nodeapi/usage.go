package nodeapi

import (
	"fmt"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// usageEntry is one row of the body. Pointers distinguish a missing member from zero, and the
// time stays text until the row is checked, so that an error can name the row.
type usageEntry struct {
	UserID         *int64  `json:"userId"`
	SubscriptionID *int64  `json:"subscriptionId"`
	NodeProtocolID *int64  `json:"nodeProtocolId"`
	BytesUp        *int64  `json:"bytesUp"`
	BytesDown      *int64  `json:"bytesDown"`
	RecordedAt     *string `json:"recordedAt"`
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
	if err := checkRows(len(*body.Entries)); err != nil {
		return nil, err
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
	strange, err := a.store.AddUsage(r.Context(), r.nodeID, r.idempotencyKey, entries)
	if strange > 0 {
		a.log.Warn("usage rows of a node name inbounds, users or subscriptions that were never its own; they are left out", logkey.Node, r.nodeID, logkey.Rows, strange)
	}
	return wire.OK{OK: true}, err
}
