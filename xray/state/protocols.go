package state

// Protocol says how node-agent treats the inbounds of one of Xray's protocols. The zero
// value is right for a protocol without clients that listens on TCP.
type Protocol struct {
	// UserManager is true where xray-core, or the inbound that takes its place, adds and
	// removes clients while it serves. For the others a changed client replaces the
	// inbound.
	UserManager bool
	// ClientsAt is the member of settings that lists the clients; empty where the protocol
	// has none. With a UserManager the list is taken out of the inbound's Config. Without
	// one it stays there, so that another list is another inbound.
	ClientsAt string
	// UUID is true where a client's id has to be a UUID.
	UUID bool
	// Secret is the member by which a client proves itself, where Xray accepts two clients
	// with one secret, or none; empty for the other protocols.
	Secret string
	// EveryKey is true where each client's key can be wrong by itself, so that a dry run
	// has to build every client and not a sample.
	EveryKey bool
	// Listens says on which networks an inbound listens over a transport that has both.
	Listens Listens
	// UnixSocket is true where an inbound can listen on a unix socket.
	UnixSocket bool
}

// Listens says how a protocol chooses TCP, UDP or both.
type Listens int

// The ways in which a protocol chooses its networks.
const (
	OnTCP            Listens = iota
	OnUDP                    // QUIC and WireGuard
	OnTCPAndUDP              // TCP always, UDP with settings.udp
	OnChosenNetworks         // settings.network names them
	OnNothing                // tun
)

// Protocols are Xray's inbound protocols by their names in lower case. A protocol that is
// missing is treated as the zero Protocol, and xray-core decides whether it exists.
var Protocols = map[string]Protocol{
	"vless":         {UserManager: true, ClientsAt: "clients", UUID: true, UnixSocket: true},
	"vmess":         {UserManager: true, ClientsAt: "clients", UUID: true, UnixSocket: true},
	"trojan":        {UserManager: true, ClientsAt: "clients", Secret: "password", UnixSocket: true},
	"shadowsocks":   {UserManager: true, ClientsAt: "clients", Secret: "password", EveryKey: true, Listens: OnChosenNetworks},
	"hysteria":      {UserManager: true, ClientsAt: "clients", Secret: "auth", Listens: OnUDP},
	"wireguard":     {UserManager: true, ClientsAt: "peers", EveryKey: true, Listens: OnUDP},
	"socks":         {ClientsAt: "accounts", Listens: OnTCPAndUDP},
	"mixed":         {ClientsAt: "accounts", Listens: OnTCPAndUDP},
	"http":          {ClientsAt: "accounts", UnixSocket: true},
	"dokodemo-door": {Listens: OnChosenNetworks},
	"tunnel":        {Listens: OnChosenNetworks},
	"tun":           {Listens: OnNothing},
}

// KnowsClients reports whether the worker is told all clients of the protocol's inbounds:
// a stream that names another client is refused.
func (p Protocol) KnowsClients() bool { return p.ClientsAt != "" }

// AccountsAt is the member of settings that lists the clients of a protocol without a
// UserManager; empty for the other protocols.
func (p Protocol) AccountsAt() string {
	if p.UserManager {
		return ""
	}
	return p.ClientsAt
}

// FlowVision is the flow of VLESS that hands the inner TLS connection through.
const FlowVision = "xtls-rprx-vision"
