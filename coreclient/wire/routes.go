package wire

// The node routes. They follow the path of Core's address.
const (
	PathRegister      = "/node/register"
	PathHeartbeat     = "/node/heartbeat"
	PathUsage         = "/node/usage"
	PathOutboundUsage = "/node/outbound-usage"
	PathSessionEvents = "/node/session-events"
	PathConfig        = "/node/config/latest"
	PathApplied       = "/node/config/applied"
	PathError         = "/node/error"
)

// Headers that the agent sends. A Core may ignore all but HeaderAuthKey.
const (
	HeaderAuthKey        = "X-Node-Auth-Key"
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderNodeConfig is the ETag of the document that the node holds and that runs in part:
	// on a heartbeat, where the revision names the last one that runs as a whole.
	HeaderNodeConfig = "X-Node-Config"
	HeaderPrefer     = "Prefer" // "wait=N": Core may hold the answer to a heartbeat for N seconds
)

// VpnProtocol is the name of a protocol, as session events have it. It is not checked.
type VpnProtocol string

// ProtocolMTProto is the protocol of MTProto inbounds. The names of all others come from
// Core's configuration.
const ProtocolMTProto VpnProtocol = "mtproto"

// SessionEventType is the kind of a session event.
type SessionEventType string

// The two session events.
const (
	Online  SessionEventType = "online"
	Offline SessionEventType = "offline"
)

// The codes of POST /node/error.
const (
	CodeConfigInvalid     = "config_invalid"
	CodeConfigApplyFailed = "config_apply_failed"
	CodePortInUse         = "port_in_use"
	CodeXrayCrashed       = "xray_crashed"
	CodeTelemtMissing     = "telemt_missing"
	CodeTelemtCrashed     = "telemt_crashed"
	CodeTelemtApplyFailed = "telemt_apply_failed"
	CodeStoreFailed       = "store_failed"
	CodeClockSkew         = "clock_skew"
	CodeDescriptors       = "descriptors_exhausted"
	CodeNoStatus          = "status_unavailable"
)
