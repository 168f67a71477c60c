package nodeconfig

import (
	"net"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/share"
)

// linkSettings has the member of an inbound that decides whether clients may have a flow.
type linkSettings struct {
	StreamSettings struct {
		Security string `json:"security"`
	} `json:"streamSettings"`
}

// Links returns the links with which a standard client connects to the inbound. There are none
// for a node that is not registered. The error is a *share.Unavailable where no link can say what
// the inbound needs.
func Links(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) ([]string, error) {
	if address(node, p) == "" && p.Protocol != mtproto { // the node is not registered, so its address is unknown
		return nil, nil
	}
	if p.Protocol == mtproto {
		return mtprotoLinks(node, p, sub)
	}
	endpoint, err := Endpoint(node, p, sub)
	if err != nil {
		return nil, err
	}
	link, err := share.Link(endpoint)
	if err != nil {
		return nil, err
	}
	return []string{link}, nil
}

// Endpoint returns how the subscription's clients reach an inbound of Xray.
func Endpoint(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) (share.Endpoint, error) {
	e, err := readEndpoint(p)
	if err != nil {
		return e, err
	}
	e.Name, e.Host, e.Port = node.Name+"-"+p.Tag, address(node, p), p.Port
	return newLogins(p, e.Account.Method).endpoint(e, sub), nil
}

// endpoint returns the inbound's endpoint with the login of a subscription.
func (l logins) endpoint(e share.Endpoint, sub corestore.Subscription) share.Endpoint {
	own := l.of(sub)
	e.Account.ID, e.Account.Flow = own.id, own.flow
	e.Account.Password += own.password // of Shadowsocks 2022 behind that of the server
	if own.method != "" {
		e.Account.Method = own.method
	}
	if server := e.Account.WireGuard; server != nil {
		c := sub.Credential(l.p)
		e.Account.WireGuard = &share.WireGuard{
			ServerKey: server.ServerKey, MTU: server.MTU, Reserved: server.Reserved,
			PrivateKey: c.PrivateKey, PreSharedKey: c.PreSharedKey, Addresses: c.AllowedIPs, KeepAlive: c.KeepAlive,
		}
	}
	return e
}

// readEndpoint reads what the inbound itself says of its clients.
func readEndpoint(p corestore.Protocol) (share.Endpoint, error) {
	return share.Read(share.Inbound{Protocol: p.Protocol, Config: p.Config, ServerName: p.Link.SNI, Flow: p.Link.Flow})
}

// address returns the address with which clients reach the inbound, empty if it is unknown. It
// is the first of these: the inbound's public host; the inbound's listen address, unless that means all addresses;
// the address that an operator gave the node; the node's host, if it is an IP address or a name
// with a dot; the node's IP address; the node's host. None of a node that is not registered is
// known.
func address(node corestore.Node, p corestore.Protocol) string {
	switch ip := net.ParseIP(p.Listen); {
	case p.Link.PublicHost != "":
		return p.Link.PublicHost
	case ip != nil && !ip.IsUnspecified():
		return p.Listen
	case node.Address != "":
		return node.Address
	case net.ParseIP(node.Host) != nil || strings.Contains(node.Host, "."):
		return node.Host
	case node.IP != "":
		return node.IP
	}
	return node.Host
}
