package state

import "slices"

// HasUserManager tells the protocols whose users can be changed one by one.
// For the others a changed client replaces the inbound.
func HasUserManager(protocol string) bool {
	return slices.Contains([]string{"vless", "vmess", "trojan", "shadowsocks", "hysteria", "wireguard"}, protocol)
}

// KnowsClients tells whether all clients of the protocol's inbounds are told to the
// worker: a stream that names another one is a stranger's.
func KnowsClients(protocol string) bool {
	return HasUserManager(protocol) || AccountsMember(protocol) != ""
}

// fixedMember is where a protocol without a user manager has its clients. They
// stay in the inbound's own object, so that another list is another inbound.
func AccountsMember(protocol string) string {
	switch protocol {
	case "socks", "http", "mixed":
		return "accounts"
	}
	return ""
}

// peersMember is where WireGuard has its clients. They change one by one, as a user
// manager's do.
const PeersMember = "peers"

// secretMember is what a client of the protocol proves itself with where Xray takes two
// clients of one; empty for the others.
func SecretMember(protocol string) string {
	switch protocol {
	case "trojan", "shadowsocks":
		return "password"
	case "hysteria":
		return "auth"
	}
	return ""
}

const FlowVision = "xtls-rprx-vision"
