package nodeconfig

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

// login is what a client of a subscription proves itself with on an inbound.
type login struct {
	id       string // UUID of VLESS and VMess, user of SOCKS and HTTP
	password string
	flow     string // of VLESS
	method   string // of Shadowsocks, where each client has its own
}

// logins makes the logins of an inbound.
type logins struct {
	p      corestore.Protocol
	method string // of a Shadowsocks inbound
	vision bool   // the inbound can have a flow
}

func newLogins(p corestore.Protocol, method string) logins {
	return logins{p, method, p.Protocol == "vless" && canHaveFlow(p)}
}

// canHaveFlow reports whether clients of a VLESS inbound can have a flow: it works on TLS or REALITY
// over raw TCP.
func canHaveFlow(p corestore.Protocol) bool {
	var in struct {
		StreamSettings struct{ Method, Network, Security string }
	}
	if json.Unmarshal(p.Config, &in) != nil { // what can't be read is refused elsewhere
		return false
	}
	s := in.StreamSettings
	network, security := strings.ToLower(cmp.Or(s.Method, s.Network)), strings.ToLower(s.Security)
	return slices.Contains([]string{"", "raw", "tcp"}, network) && slices.Contains([]string{"tls", "reality"}, security)
}

// noFlow is how a credential says that its client has no flow where the inbound's clients have one.
const noFlow = "none"

// of returns the login of a subscription: its own credential, and what that leaves open derived
// from the UUID.
func (l logins) of(sub corestore.Subscription) login {
	var own corestore.Credential
	if len(sub.Credentials) > 0 { // nearly none has any
		own = sub.Credential(l.p)
	}
	switch l.p.Protocol {
	case "vless":
		flow := l.p.Link.Flow
		if own.Flow != "" && (l.vision || own.ProtocolID != 0) {
			flow = strings.TrimPrefix(own.Flow, noFlow)
		}
		return login{id: cmp.Or(own.ID, sub.UUID), flow: flow}
	case "vmess":
		return login{id: cmp.Or(own.ID, sub.UUID)}
	case "socks", "http", "mixed":
		return login{id: cmp.Or(own.ID, sub.UUID), password: cmp.Or(own.Password, sub.UUID)}
	case "shadowsocks":
		password, method := shadowsocksClient(l.method, sub.UUID)
		if method != "" { // the methods of 2022 are the inbound's
			method = cmp.Or(own.Method, method)
		}
		return login{password: cmp.Or(own.Password, password), method: method}
	}
	return login{password: cmp.Or(own.Password, sub.UUID)}
}

// shadowsocksClient returns the password of a client and its method, which is empty for the
// 2022 methods: there all clients have the inbound's method. Those methods need a base64 key
// of 16 or 32 bytes as the password, which is derived from the UUID.
func shadowsocksClient(method, uuid string) (password, clientMethod string) {
	if !strings.HasPrefix(method, "2022-") {
		return uuid, method
	}
	sum := sha256.Sum256([]byte(uuid))
	size := len(sum)
	if strings.Contains(method, "aes-128") {
		size = 16
	}
	return base64.StdEncoding.EncodeToString(sum[:size]), ""
}

// DerivedPasswords returns the passwords that are derived from a subscription's UUID and differ from
// it.
func DerivedPasswords(sub corestore.Subscription) []string {
	short, _ := shadowsocksClient("2022-blake3-aes-128-gcm", sub.UUID)
	long, _ := shadowsocksClient("2022-blake3-aes-256-gcm", sub.UUID)
	return []string{short, long}
}
