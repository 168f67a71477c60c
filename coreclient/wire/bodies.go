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

// RegisterResponse is the answer to a RegisterRequest. The node keeps it until it registers again.
type RegisterResponse struct {
	AuthKey string `json:"authKey"` // secret; the node sends it as HeaderAuthKey
	NodeID  NodeID `json:"nodeId"`
}

// HeartbeatRequest is the body of POST /node/heartbeat.
type HeartbeatRequest struct {
	IP       string `json:"ip,omitempty"`
	Revision *int64 `json:"revision,omitempty"` // that runs; nil for none
}

// HeartbeatResponse is the answer to a HeartbeatRequest.
type HeartbeatResponse struct {
	OK       bool `json:"ok"`
	NeedSync bool `json:"needSync"` // Core wants another revision than the one that runs
	// Held is true where HeaderNodeConfig named the newest document: nothing newer is to be
	// fetched, though the node does not run it as a whole. Another Core leaves it out.
	Held bool `json:"held,omitempty"`
	// Delta leads from the document that HeaderNodeConfig named to the newest one; see package
	// delta. It is small, and there only where the node asked for deltas. NeedSync is true beside
	// it: a node that can't use it fetches its configuration.
	Delta json.RawMessage `json:"delta,omitempty"`
}

// UsageRequest is the body of POST /node/usage.
type UsageRequest struct {
	Entries []UsageEntry `json:"entries"`
}

// UsageEntry is how many bytes one client moved through one node protocol in one minute. In old
// entries that were merged, it is an hour or a day.
type UsageEntry struct {
	UserID         int64     `json:"userId"`
	SubscriptionID *int64    `json:"subscriptionId"`
	NodeProtocolID int64     `json:"nodeProtocolId"`
	BytesUp        int64     `json:"bytesUp"`    // client to node
	BytesDown      int64     `json:"bytesDown"`  // node to client
	RecordedAt     time.Time `json:"recordedAt"` // UTC, start of the minute, hour or day in which the bytes moved
}

// OutboundUsageRequest is the body of POST /node/outbound-usage.
type OutboundUsageRequest struct {
	Items []OutboundUsageItem `json:"items"`
}

// OutboundUsageItem is how many bytes went through one outbound since its last item.
type OutboundUsageItem struct {
	Tag       string `json:"tag"`
	BytesUp   int64  `json:"bytesUp"`   // client to target
	BytesDown int64  `json:"bytesDown"` // target to client
}

// SessionEventsRequest is the body of POST /node/session-events.
type SessionEventsRequest struct {
	Events []SessionEvent `json:"events"`
}

// SessionEvent says that a client of a user came online or went offline at one address.
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

// StatusRequest is the body of POST /node/status: how the node is now. It replaces the one
// before.
type StatusRequest struct {
	Versions struct {
		Xray   string `json:"xray,omitempty"`
		Telemt string `json:"telemt,omitempty"` // empty where no MTProto inbound runs
	} `json:"versions"`
	Inbounds []InboundHealth `json:"inbounds"`
	// Warnings are sentences about what works and is not wise, and about files and
	// certificates.
	Warnings []string `json:"warnings,omitempty"`
	// MoreInbounds and MoreWarnings count what the report has no room for.
	MoreInbounds int `json:"moreInbounds,omitempty"`
	MoreWarnings int `json:"moreWarnings,omitempty"`
}

// The states of an inbound.
const (
	HealthReady    = "ready"
	HealthDegraded = "degraded" // it serves, and not as it is wanted
	HealthFailed   = "failed"   // it does not serve
)

// InboundHealth is how one inbound is.
type InboundHealth struct {
	Tag      string      `json:"tag"`
	Protocol VpnProtocol `json:"protocol,omitempty"`
	State    string      `json:"state"`
	Since    time.Time   `json:"since"` // UTC; when it came to this state, as far as this daemon knows
	Reason   string      `json:"reason,omitempty"`
}

// OK is the answer to every POST that has no answer of another type.
type OK struct {
	OK bool `json:"ok"`
}

// NodeConfig is the answer to GET /node/config/latest.
type NodeConfig struct {
	Revision  int64                `json:"revision"`
	ClientMap map[string]ClientRef `json:"clientMap"` // by client key: the UUID of a subscription link; secret
	Services  Services             `json:"services"`
}

// ClientRef is the user, and the subscription if there is one, to whom the traffic of a client is
// attributed.
type ClientRef struct {
	UserID         int64  `json:"userId"`
	SubscriptionID *int64 `json:"subscriptionId"`
}

// Services has the configuration of each engine, in the form that the engine's package parses;
// nil for an engine that the node does not need.
type Services struct {
	Xray    json.RawMessage `json:"xray,omitempty"`
	MTProto json.RawMessage `json:"mtproto,omitempty"`
}
