package xray

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// checkTogether finds what is wrong between the parts of a state: Xray takes
// all of it without a word.
func checkTogether(s State) error {
	if err := checkPorts(s, false); err != nil {
		return err
	}
	return checkBalancers(s)
}

// Binding is one address, port and transport that an inbound listens on, or a unix
// socket.
type Binding struct {
	Tag     string
	Network string // tcp, udp or unix
	Address netip.Addr
	Port    uint16 // 0 of a unix socket
	Path    string `json:",omitzero"` // of a unix socket, "@name" where it is abstract
}

func (b Binding) String() string {
	if b.Network == networkUnix {
		return "unix:" + b.Path
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(b.Address, b.Port), b.Network)
}

// Overlaps tells whether one of the two would be in the other's way.
func (b Binding) Overlaps(o Binding) bool {
	return b.Network == o.Network && b.Port == o.Port && b.Path == o.Path &&
		(b.Address == o.Address || b.Address.IsUnspecified() || o.Address.IsUnspecified())
}

// checkPorts finds two inbounds on one port or unix socket. SOCKS' UDP and unix sockets
// are looked at in new states alone: the checks are younger than what may run.
func checkPorts(s State, isNew bool) error {
	taken := map[uint16][]Binding{}
	for _, tag := range s.Tags() {
		bindings, err := s.Inbounds[tag].Bindings()
		if err != nil {
			return err
		}
		if socks := s.Inbounds[tag].Protocol; !isNew && (socks == "socks" || socks == "mixed") {
			bindings = slices.DeleteFunc(bindings, func(b Binding) bool { return b.Network == "udp" })
		}
		for _, b := range bindings {
			i := slices.IndexFunc(taken[b.Port], b.Overlaps)
			switch {
			case i < 0:
			case b.Network == networkUnix && !isNew:
			case b.Network == networkUnix:
				return invalid(tag, "inbounds %q and %q both listen on the unix socket %s: give one of them another path", taken[b.Port][i].Tag, tag, b.Path)
			default:
				return invalid(tag, "inbounds %q and %q both listen on port %d (%s): connections would be split between them", taken[b.Port][i].Tag, tag, b.Port, b)
			}
		}
		for _, b := range bindings {
			taken[b.Port] = append(taken[b.Port], b)
		}
	}
	return nil
}

// listening is the part of an inbound that says where it listens.
type listening struct {
	Listen   string          `json:"listen"`
	Port     json.RawMessage `json:"port"`
	Settings struct {
		Network json.RawMessage `json:"network"`
		UDP     bool            `json:"udp"` // of socks
	} `json:"settings"`
	StreamSettings struct {
		Network     string `json:"network"`
		Security    string `json:"security"`
		TLSSettings struct {
			ALPN json.RawMessage `json:"alpn"` // a list, or text with commas
		} `json:"tlsSettings"`
	} `json:"streamSettings"`
}

// readListening makes small letters of what Xray takes in capitals too.
func readListening(config json.RawMessage) (listening, error) {
	var where listening
	if err := json.Unmarshal(config, &where); err != nil {
		return where, err
	}
	stream := &where.StreamSettings
	stream.Network, stream.Security = strings.ToLower(stream.Network), strings.ToLower(stream.Security)
	where.Settings.Network = bytes.ToLower(where.Settings.Network)
	return where, nil
}

// http3 tells XHTTP over QUIC: with h3 alone (transport/internet/splithttp/hub.go).
func (l listening) http3() bool {
	switch s := l.StreamSettings; {
	case s.Network != "xhttp" && s.Network != "splithttp", s.Security != "tls":
		return false
	default:
		alpn := string(s.TLSSettings.ALPN)
		return alpn == `["h3"]` || alpn == `"h3"`
	}
}

// Bindings returns where the inbound listens.
func (in Inbound) Bindings() ([]Binding, error) {
	where, err := readListening(in.Config)
	if err != nil {
		return nil, invalid(in.Tag, "read inbound %q: %v", in.Tag, err)
	}
	if in.Protocol == "tun" {
		return nil, nil
	}
	if path, _ := UnixPath(where.Listen); path != "" {
		if !slices.Contains(onUnixSockets, in.Protocol) {
			return nil, nil // Xray takes it, and listens on nothing
		}
		return []Binding{{Tag: in.Tag, Network: networkUnix, Path: path}}, nil
	}
	address := netip.IPv4Unspecified()
	if where.Listen == "localhost" {
		address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	} else if where.Listen != "" {
		var err error
		if address, err = netip.ParseAddr(strings.Trim(where.Listen, "[]")); err != nil {
			return nil, invalid(in.Tag, "inbound %q listens on %q, which is no IP address", in.Tag, where.Listen)
		}
	}
	ports, err := parsePorts(where.Port)
	if err != nil {
		return nil, invalid(in.Tag, "inbound %q: %v", in.Tag, err)
	}
	var bindings []Binding
	for _, port := range ports {
		for _, network := range in.networks(where) {
			bindings = append(bindings, Binding{Tag: in.Tag, Network: network, Address: address.Unmap(), Port: port})
		}
	}
	return bindings, nil
}

func (in Inbound) networks(where listening) []string {
	switch {
	case in.Protocol == "wireguard" || in.Protocol == "hysteria":
		return []string{"udp"}
	case slices.Contains(overUDP, where.StreamSettings.Network) || where.http3():
		return []string{"udp"}
	case slices.Contains(onChosenNetworks, in.Protocol):
		return where.chosenNetworks()
	case (in.Protocol == "socks" || in.Protocol == "mixed") && where.Settings.UDP:
		return []string{"tcp", "udp"}
	}
	return []string{"tcp"}
}

// parsePorts reads Xray's port member: a number, or text of numbers and
// ranges, as 443, "443" and "1000-1010,2000".
func parsePorts(raw json.RawMessage) ([]uint16, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("it has no port")
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, fmt.Errorf("read port: %w", err)
		}
	}
	var ports []uint16
	var named [1 << 16]bool
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || from == 0 || to < from {
			return nil, fmt.Errorf("port %s is none: want a number from 1 to 65535, or ranges of them as \"1000-1010,2000\"", raw)
		}
		for port := from; port <= to; port++ {
			if named[port] {
				continue
			}
			named[port] = true
			ports = append(ports, uint16(port))
		}
	}
	return ports, nil
}

// routes is the part of Xray's routing object that names outbounds.
type routes struct {
	Rules []struct {
		RuleTag     string `json:"ruleTag"`
		OutboundTag string `json:"outboundTag"`
		BalancerTag string `json:"balancerTag"`
	} `json:"rules"`
	Balancers []struct {
		Tag         string   `json:"tag"`
		Selector    []string `json:"selector"`
		FallbackTag string   `json:"fallbackTag"`
	} `json:"balancers"`
}

// checkBalancers finds a rule to a balancer that does not exist.
func checkBalancers(s State) error {
	if s.Routing == nil {
		return nil
	}
	var routing routes
	if err := json.Unmarshal(s.Routing, &routing); err != nil {
		return invalid("", "read routing: %v", err)
	}
	balancers := map[string]bool{}
	for _, balancer := range routing.Balancers {
		balancers[balancer.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.BalancerTag != "" && !balancers[rule.BalancerTag] {
			return invalid(rule.BalancerTag, "routing.rules[%d] names balancer %q, which does not exist: its traffic would be dropped", i, rule.BalancerTag)
		}
	}
	return nil
}
