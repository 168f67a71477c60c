package nodeconfig

import (
	"encoding/json"
	"net"
	"slices"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

// Collide says whether two inbounds of a node would listen on the same address and port.
func Collide(a, b corestore.Protocol) bool {
	return a.Port == b.Port && overlap(a.Listen, b.Listen) &&
		slices.ContainsFunc(transports(a), func(t string) bool { return slices.Contains(transports(b), t) })
}

// overlap says whether two listen addresses have an address in common. An empty one means all
// addresses.
func overlap(a, b string) bool {
	all := func(listen string) bool {
		ip := net.ParseIP(listen)
		return listen == "" || ip != nil && ip.IsUnspecified()
	}
	return a == b || all(a) || all(b)
}

// transports returns the networks on which an inbound listens: tcp, udp or both.
func transports(p corestore.Protocol) []string {
	var in struct {
		linkSettings
		Settings struct {
			Network json.RawMessage `json:"network"`
			UDP     bool            `json:"udp"` // only of socks
		} `json:"settings"`
	}
	_ = json.Unmarshal(p.Config, &in) // FromNative has decoded it without an error
	stream := in.StreamSettings
	network := strings.ToLower(stream.Network)
	quic := (network == "xhttp" || network == "splithttp") && stream.Security == "tls" && alpn(stream.TLSSettings.ALPN) == "h3"
	switch {
	case p.Protocol == "hysteria" || p.Protocol == "wireguard" || network == "kcp" || network == "mkcp" || network == "hysteria" || quic:
		return []string{"udp"}
	case p.Protocol == "shadowsocks" || p.Protocol == "dokodemo-door" || p.Protocol == "tunnel":
		var both []string
		named := string(in.Settings.Network)
		if named == "" || strings.Contains(named, "tcp") {
			both = append(both, "tcp")
		}
		if strings.Contains(named, "udp") {
			both = append(both, "udp")
		}
		return both
	case (p.Protocol == "socks" || p.Protocol == "mixed") && in.Settings.UDP:
		return []string{"tcp", "udp"}
	}
	return []string{"tcp"}
}
