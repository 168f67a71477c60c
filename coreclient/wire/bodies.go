package wire

import (
	"encoding/json"
	"time"
)

// RegisterRequest is the body of POST /node/register, the only public route.
type RegisterRequest struct {
	Code   string `json:"code"` // the one-time code of the join token; secret
	Name   string `json:"name"`
	Host   string `json:"host"`
	IP     string `json:"ip"`
	Region string `json:"region"`
}

// RegisterResponse has what the node keeps for life.
type RegisterResponse struct {
	AuthKey string `json:"authKey"` // secret; sent as HeaderAuthKey from then on
	NodeID  NodeID `json:"nodeId"`
}

// HeartbeatRequest is the body of POST /node/heartbeat.
type HeartbeatRequest struct {
	IP       string `json:"ip,omitempty"`
	Revision *int64 `json:"revision,omitempty"` // of the configuration that runs; nil where none does
}

// HeartbeatResponse answers a heartbeat.
type HeartbeatResponse struct {
	OK       bool `json:"ok"`
	NeedSync bool `json:"needSync"` // true where the node's revision is behind
}

// UsageRequest is the body of POST /node/usage.
type UsageRequest struct {
	Entries []UsageEntry `json:"entries"`
}

// UsageEntry is what one client moved through one node protocol in one minute.
type UsageEntry struct {
	UserID         int64     `json:"userId"`
	SubscriptionID *int64    `json:"subscriptionId"`
	NodeProtocolID int64     `json:"nodeProtocolId"`
	BytesUp        int64     `json:"bytesUp"`    // client to node
	BytesDown      int64     `json:"bytesDown"`  // node to client
	RecordedAt     time.Time `json:"recordedAt"` // UTC start of the minute in which the bytes moved
}

// OutboundUsageRequest is the body of POST /node/outbound-usage.
type OutboundUsageRequest struct {
	Items []OutboundUsageItem `json:"items"`
}

// OutboundUsageItem is what moved through one outbound since the last item.
type OutboundUsageItem struct {
	Tag       string `json:"tag"`
	BytesUp   int64  `json:"bytesUp"`
	BytesDown int64  `json:"bytesDown"`
}

// SessionEventsRequest is the body of POST /node/session-events.
type SessionEventsRequest struct {
	Events []SessionEvent `json:"events"`
}

// SessionEvent tells that a user's client came online or went offline.
type SessionEvent struct {
	UserID     int64            `json:"userId"`
	Protocol   VpnProtocol      `json:"protocol"`
	EventType  SessionEventType `json:"eventType"`
	OccurredAt time.Time        `json:"occurredAt"` // UTC
	IPAddress  string           `json:"ipAddress,omitempty"`
}

// AppliedRequest is the body of POST /node/config/applied.
type AppliedRequest struct {
	Revision int64 `json:"revision"`
}

// ErrorRequest is the body of POST /node/error.
type ErrorRequest struct {
	Message string         `json:"message"`
	Code    string         `json:"code,omitempty"`
	Details map[string]any `json:"details,omitempty"`
}

// OK is the answer of every POST that has nothing else to say.
type OK struct {
	OK bool `json:"ok"`
}

// NodeConfig is the answer of GET /node/config/latest.
type NodeConfig struct {
	Revision  int64                `json:"revision"`
	ClientMap map[string]ClientRef `json:"clientMap"` // by the UUID of a subscription link
	Services  Services             `json:"services"`
}

// ClientRef says whom a client's traffic is attributed to.
type ClientRef struct {
	UserID         int64  `json:"userId"`
	SubscriptionID *int64 `json:"subscriptionId"`
}

// Services has each engine's configuration as that engine's package reads it;
// nil where the node does not run that engine.
type Services struct {
	Xray    json.RawMessage `json:"xray,omitempty"`
	MTProto json.RawMessage `json:"mtproto,omitempty"`
}
