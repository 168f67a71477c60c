package coreapi

// Credential is what a subscription proves itself with on the inbounds of one protocol, or on one
// inbound, in the place of what Core derives from its UUID. Subscriptions that were imported have
// some, so that the links of the panel before go on working. A member that is empty is derived as
// without the credential. It is a secret.
type Credential struct {
	Protocol string `json:"protocol" doc:"vless, vmess, trojan, shadowsocks, hysteria, wireguard, socks, http or mixed"`
	// ProtocolID is the inbound on which alone it counts; 0 for all inbounds of the protocol. One
	// of an inbound wins over one of its protocol.
	ProtocolID int64  `json:"protocolId,omitempty" doc:"The inbound on which alone it counts."`
	ID         string `json:"id,omitempty" doc:"The UUID of VLESS and VMess, the user of SOCKS and HTTP."`
	Password   string `json:"password,omitempty" doc:"Of Trojan, Shadowsocks, Hysteria, SOCKS and HTTP."`
	Flow       string `json:"flow,omitempty" doc:"Of VLESS: xtls-rprx-vision, or none; the inbound's without it. One of a protocol counts on inbounds that can have a flow."`
	Method     string `json:"method,omitempty" doc:"Of Shadowsocks, where the inbound lets each client have its own."`

	// Only for wireguard, where a subscription without a credential is no peer. Keys are 32 bytes
	// in base64.
	PrivateKey   string   `json:"privateKey,omitempty" doc:"Of a WireGuard client; links have it."`
	PublicKey    string   `json:"publicKey,omitempty"`
	PreSharedKey string   `json:"preSharedKey,omitempty"`
	AllowedIPs   []string `json:"allowedIps,omitempty" doc:"The addresses of a WireGuard client inside the tunnel."`
	KeepAlive    int64    `json:"keepAlive,omitempty" doc:"Of WireGuard, in seconds."`
}
