package wire

// The node routes, below the path of Core's address.
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

// Headers that the agent sends and that any Core may ignore.
const (
	HeaderAuthKey        = "X-Node-Auth-Key"
	HeaderIdempotencyKey = "Idempotency-Key"
	HeaderPrefer         = "Prefer" // "wait=N": the heartbeat may be held for N seconds
)

// VpnProtocol names what a client speaks. An unknown one is passed through.
type VpnProtocol string

// ProtocolMTProto is the protocol of MTProto inbounds. The names of all others come from
// Core's configuration.
const ProtocolMTProto VpnProtocol = "mtproto"

// SessionEventType tells whether a client came or went.
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
)
