// Package share says in the words of clients how one of them reaches an inbound: as a link, and as
// an outbound of Xray, mihomo and sing-box.
//
// Read turns an inbound as Core keeps it, which is Xray's own object for a server, into an
// Endpoint, which has what a client needs and the words of no client. Link, XrayOutbound,
// MihomoProxy and SingBoxOutbound write an Endpoint in one of the forms. A form that cannot say
// what the inbound needs is refused with the reason (Unavailable): a link that does not connect is
// worse than none.
package share

import (
	"encoding/json"
	"fmt"
)

// Endpoint is how one client reaches one inbound. It holds secrets of the client.
type Endpoint struct {
	Name     string // what the client shows
	Protocol string // vless, vmess, trojan, shadowsocks, hysteria, socks, http, wireguard
	Host     string // domain or IP address, IPv6 without brackets
	Port     int
	Account  Account
	Stream   Stream
}

// Account is what the client proves itself with.
type Account struct {
	// ID is the UUID of VLESS and VMess, and the user of SOCKS and HTTP.
	ID string
	// Password is that of all other protocols. For Shadowsocks 2022 it has the key of the server
	// before that of the client, with a colon between them.
	Password   string
	Flow       string // of VLESS, empty for none
	Encryption string // of VLESS, in the client's form; "none" without
	Method     string // of Shadowsocks
	WireGuard  *WireGuard
}

// Stream is the transport with its security. The names of networks and securities are those of
// links (XTLS's proposal for VMessAEAD and VLESS links): tcp, kcp, ws, httpupgrade, grpc, xhttp,
// hysteria; none, tls, reality.
type Stream struct {
	Network string
	Host    string // the HTTP Host that the inbound expects; empty for the server name
	Path    string
	Headers map[string]string // further headers of HTTP requests
	// HTTPHeader says that a raw TCP connection begins with the header of an HTTP/1.1 request.
	HTTPHeader bool
	Mode       string          // of XHTTP
	Extra      json.RawMessage // of XHTTP: its further members, an object; nil for none
	Service    string          // of gRPC
	Authority  string          // of gRPC
	Multi      bool            // of gRPC
	// Masks is Xray's finalmask object; nil for none.
	Masks json.RawMessage

	Security    string
	ServerName  string
	ALPN        []string
	Fingerprint string // of the browser that the TLS handshake imitates
	PublicKey   string // of REALITY, base64url
	ShortID     string // of REALITY, hex

	// settings is the transport's object in the words of Xray, without what only servers have.
	settings map[string]json.RawMessage
}

// Unavailable is the reason why there is no link, or none in a form.
type Unavailable struct{ Reason string }

func (u *Unavailable) Error() string { return u.Reason }

func unavailable(format string, args ...any) error {
	return &Unavailable{fmt.Sprintf(format, args...)}
}
