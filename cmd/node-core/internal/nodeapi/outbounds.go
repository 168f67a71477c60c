package nodeapi

import (
	"fmt"

	"nodeagent/cmd/node-core/internal/problem"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/logkey"
)

// outboundItem is one row of the body, with pointers as in usageEntry.
type outboundItem struct {
	Tag       *string `json:"tag"`
	BytesUp   *int64  `json:"bytesUp"`
	BytesDown *int64  `json:"bytesDown"`
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
	if err := checkRows(len(*body.Items)); err != nil {
		return nil, err
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
	left, err := a.store.AddOutboundUsage(r.Context(), r.nodeID, r.idempotencyKey, items)
	if left > 0 {
		a.log.Warn("a node names more outbounds than any node has; the traffic of new ones is left out", logkey.Node, r.nodeID, logkey.Rows, left)
	}
	return wire.OK{OK: true}, err
}
