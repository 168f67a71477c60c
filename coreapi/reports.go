package coreapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"nodeagent/coreclient/wire"
)

// Traffic is a number of bytes in each direction.
type Traffic struct {
	BytesUp   int64 `json:"bytesUp" doc:"Client to node."`
	BytesDown int64 `json:"bytesDown" doc:"Node to client."`
}

// UsageReport is usage that is summed up.
type UsageReport struct {
	Rows   []ReportRow `json:"rows" nullable:"false"`
	Totals Traffic     `json:"totals" doc:"Of all usage between since and until, also where rows are left out."`
	// Truncated says that there are more rows than the answer may have.
	Truncated bool `json:"truncated,omitempty"`
}

// ReportRow is the usage of one user, subscription, node, inbound or group in one step.
type ReportRow struct {
	Time *time.Time `json:"time,omitempty" doc:"The beginning of the step, in the time zone of the report; missing without steps."`
	ID   int64      `json:"id" doc:"0 for what has none: usage without a subscription, or of somebody who was erased."`
	Name string     `json:"name" doc:"Of a subscription its user's, of an inbound NODE/TAG. Also of what was removed; empty where it is not known."`
	Traffic
}

// Session is a client that is online.
type Session struct {
	NodeID     int64            `json:"nodeId"`
	Node       string           `json:"node"`
	NodeStatus string           `json:"nodeStatus" doc:"offline where the node was not heard of for a while: the client may be gone"`
	UserID     int64            `json:"userId"`
	User       string           `json:"user" doc:"Empty where the user is not known."`
	Protocol   wire.VpnProtocol `json:"protocol"`
	IPAddress  string           `json:"ipAddress,omitempty"`
	Since      time.Time        `json:"since" doc:"UTC"`
}

// UsageReport returns usage that is summed up. The query has by, and may have since, until, step,
// timezone and limit.
func (c *Client) UsageReport(ctx context.Context, query url.Values) (report UsageReport, err error) {
	_, err = c.do(ctx, request{method: http.MethodGet, path: "/usage/report", query: query, wait: reportWait}, &report)
	return report, err
}

// reportWait is how long a report may take beside the time of any other answer.
const reportWait = 5 * time.Minute

// Online returns who is online. The query may have node, user and limit.
func (c *Client) Online(ctx context.Context, query url.Values) ([]Session, error) {
	return call[[]Session](ctx, c, http.MethodGet, "/online", query, nil)
}
