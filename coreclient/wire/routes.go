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
	// PathStatus is optional: a Core without it answers 404 or 405.
	PathStatus = "/node/status"
)

// Headers that the agent sends. A Core may ignore all but HeaderAuthKey.
const (
	HeaderAuthKey        = "X-Node-Auth-Key"
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderNodeConfig is the ETag of the document that the node holds. The document may run in
	// part: on a heartbeat, the revision names the last one that runs as a whole.
	HeaderNodeConfig = "X-Node-Config"
	HeaderPrefer     = "Prefer" // "wait=N": Core may hold the answer to a heartbeat for N seconds
	// HeaderNodeBoot is a random text, another one for each start of the daemon. Two daemons
	// behind one key are seen by it.
	HeaderNodeBoot = "X-Node-Boot"
	// HeaderNodeMachine is a hash of the host's machine-id and the node's id.
	HeaderNodeMachine = "X-Node-Machine"
)

// Headers of Core's answers. A Core may lack them.
const (
	HeaderCoreID    = "X-Core-Id"    // see CoreIdentity
	HeaderCoreEpoch = "X-Core-Epoch" // see CoreIdentity
	HeaderCoreURL   = "X-Core-Url"   // see CoreIdentity.NextURL; on heartbeats
	// HeaderNextKey is on a heartbeat's answer: the auth key that the node is to use from now
	// on. The one that it has is accepted until the next one was used.
	HeaderNextKey = "X-Node-Next-Key"
)

// CoreIdentity is who a Core is.
type CoreIdentity struct {
	// ID is a UUID, made with Core's database and kept in its copies. It is empty for a Core
	// that does not say.
	ID string `json:"id"`
	// Epoch is raised each time that the database was restored from a copy.
	Epoch int64 `json:"epoch"`
	// NextURL is an address under which nodes are to try this Core too where it does not
	// answer; empty for none.
	NextURL string `json:"nextUrl,omitempty"`
}

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
	CodeUpgradeFailed     = "upgrade_failed"
)
