package state

import (
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"strings"
)

// InboundView is what node-agent itself reads of an inbound's object. It is decoded once,
// when the document is parsed. A member of another kind than expected is left empty:
// xray-core refuses it by name when it builds the inbound.
type InboundView struct {
	Listen         string          `json:"listen"`
	TrustedProxies json.RawMessage `json:"trustedProxies"`
	Settings       struct {
		Method         string            `json:"method"`
		Auth           string            `json:"auth"`
		Accounts       []json.RawMessage `json:"accounts"`
		Flow           string            `json:"flow"`
		Decryption     json.RawMessage   `json:"decryption"`
		FollowRedirect bool              `json:"followRedirect"`
		Fallbacks      []struct {
			Dest json.RawMessage `json:"dest"`
		} `json:"fallbacks"`
	} `json:"settings"`
	Stream   StreamView `json:"streamSettings"`
	Sniffing struct {
		DomainsExcluded json.RawMessage `json:"domainsExcluded"`
	} `json:"sniffing"`

	listening    listening
	listeningErr error
}

// StreamView is what node-agent itself reads of streamSettings, of an inbound or an
// outbound. Network and Security are in lower case.
type StreamView struct {
	Network  string `json:"network"`
	Security string `json:"security"`
	Sockopt  struct {
		AcceptProxyProtocol  bool     `json:"acceptProxyProtocol"`
		TrustedXForwardedFor []string `json:"trustedXForwardedFor"`
		TProxy               string   `json:"tproxy"`
		DialerProxy          string   `json:"dialerProxy"`
	} `json:"sockopt"`
	TLSSettings struct {
		Certificates []Certificate `json:"certificates"`
	} `json:"tlsSettings"`
	RealitySettings     Reality       `json:"realitySettings"`
	TCPSettings         *RawTransport `json:"tcpSettings"`
	RawSettings         *RawTransport `json:"rawSettings"`
	WSSettings          overProxies   `json:"wsSettings"`
	HTTPUpgradeSettings overProxies   `json:"httpupgradeSettings"`
	HysteriaSettings    struct {
		Auth       string `json:"auth"`
		Masquerade struct {
			Type string `json:"type"`
			Dir  string `json:"dir"`
		} `json:"masquerade"`
	} `json:"hysteriaSettings"`
	FinalMask struct {
		UDP []struct {
			Type     string `json:"type"`
			Settings struct {
				Password string `json:"password"`
			} `json:"settings"`
		} `json:"udp"`
	} `json:"finalmask"`
	XHTTPSettings     SecondDial `json:"xhttpSettings"`
	SplitHTTPSettings SecondDial `json:"splithttpSettings"`
}

// Pages is the folder whose files an inbound of Hysteria shows to those who are no clients; empty
// for none.
func (s StreamView) Pages() string {
	if m := s.HysteriaSettings.Masquerade; strings.EqualFold(m.Type, "file") {
		return m.Dir
	}
	return ""
}

// RawTransport is what node-agent reads of the settings of the raw (TCP) transport.
type RawTransport struct {
	overProxies
	Header struct {
		Type string `json:"type"`
	} `json:"header"`
}

// Reality is what node-agent reads of realitySettings. Target and Dest are two names of one
// member: a port, a host and a port, or the path of a unix socket.
type Reality struct {
	Target      json.RawMessage `json:"target"`
	Dest        json.RawMessage `json:"dest"`
	ServerNames []string        `json:"serverNames"`
	Xver        int             `json:"xver"`
}

// Site returns the network (tcp or unix) and the address of the site that an inbound borrows,
// as xray-core reads them (infra/conf/transport_security.go:59). They are empty where there is
// none, and for an abstract socket that is padded for HAProxy, which only HAProxy opens.
func (r Reality) Site() (network, address string) {
	raw := r.Target
	if raw == nil {
		raw = r.Dest
	}
	var port uint16
	if json.Unmarshal(raw, &port) == nil {
		return "tcp", net.JoinHostPort("localhost", strconv.Itoa(int(port)))
	}
	if json.Unmarshal(raw, &address) != nil || address == "" || strings.HasPrefix(address, "@@") {
		return "", ""
	}
	if address[0] == '/' || address[0] == '@' {
		return "unix", address
	}
	if _, err := strconv.Atoi(address); err == nil {
		address = net.JoinHostPort("localhost", address)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", ""
	}
	return "tcp", address
}

// overProxies has the switch of a transport that reads the PROXY protocol.
type overProxies struct {
	AcceptProxyProtocol bool `json:"acceptProxyProtocol"`
}

// SecondDial is XHTTP's own streamSettings for the way back, which an outbound may dial
// apart from the way out.
type SecondDial struct {
	DownloadSettings dialVia `json:"downloadSettings"`
	Extra            struct {
		DownloadSettings dialVia `json:"downloadSettings"`
	} `json:"extra"`
}

type dialVia struct {
	Sockopt struct {
		DialerProxy string `json:"dialerProxy"`
	} `json:"sockopt"`
}

// Certificate is Xray's certificate object, as far as node-agent reads it. Certificate and
// Key are the lines of a PEM text.
type Certificate struct {
	CertificateFile string   `json:"certificateFile"`
	KeyFile         string   `json:"keyFile"`
	Certificate     []string `json:"certificate"`
	Key             []string `json:"key"`
	Usage           string   `json:"usage"`
}

// View returns what node-agent reads of the inbound's Config.
func (in Inbound) View() *InboundView {
	if in.view != nil {
		return in.view
	}
	return readInbound(in.Config)
}

// Decoded returns the inbound with its view, so that View need not decode Config each time, and with
// what AnyClient and HasUUID need to know of the clients. A caller that changes Config or adds clients
// afterwards calls Decoded again.
func (in Inbound) Decoded() Inbound {
	in.view, in.noted, in.seen = readInbound(in.Config), &Reading{}, seenOf(in.Clients)
	for _, c := range in.Clients {
		in.noted.and(c.Reading)
	}
	return in
}

func readInbound(config json.RawMessage) *InboundView {
	v := &InboundView{}
	_ = json.Unmarshal(config, v) // encoding/json goes on after a member of another kind
	v.Stream.lower()
	v.listening, v.listeningErr = readListening(config)
	return v
}

func (s *StreamView) lower() {
	s.Network, s.Security = strings.ToLower(s.Network), strings.ToLower(s.Security)
}

// ProxyProtocol reports whether the header of the PROXY protocol is read: sockopt can ask
// for it, and so can the settings of some transports.
func (s *StreamView) ProxyProtocol() bool {
	var own bool
	switch s.Network {
	case "", "tcp", "raw":
		own = s.TCPSettings.acceptsProxies() || s.RawSettings.acceptsProxies()
	case "ws", "websocket":
		own = s.WSSettings.AcceptProxyProtocol
	case "httpupgrade":
		own = s.HTTPUpgradeSettings.AcceptProxyProtocol
	}
	return own || s.Sockopt.AcceptProxyProtocol
}

func (t *RawTransport) acceptsProxies() bool { return t != nil && t.AcceptProxyProtocol }

// NamesForwarded reports whether a header of a request can name a client's address.
func (s *StreamView) NamesForwarded() bool {
	overHTTP := []string{"ws", "websocket", "httpupgrade", "xhttp", "splithttp", "grpc"}
	return len(s.Sockopt.TrustedXForwardedFor) > 0 && slices.Contains(overHTTP, s.Network)
}

// OutboundView is what node-agent itself reads of an outbound's object.
type OutboundView struct {
	ProxySettings struct {
		Tag string `json:"tag"`
	} `json:"proxySettings"`
	Settings struct {
		FinalRules json.RawMessage `json:"finalRules"` // of freedom
	} `json:"settings"`
	Stream StreamView `json:"streamSettings"`
}

// View returns what node-agent reads of the outbound's Config. A member of another kind
// than expected is left empty: xray-core refuses it by name.
func (o Outbound) View() OutboundView {
	var v OutboundView
	_ = json.Unmarshal(o.Config, &v)
	v.Stream.lower()
	return v
}

// RoutingView is what node-agent itself reads of Xray's routing object.
type RoutingView struct {
	DomainStrategy string          `json:"domainStrategy"`
	DomainMatcher  json.RawMessage `json:"domainMatcher"`
	Rules          []RuleView      `json:"rules"`
	Balancers      []BalancerView  `json:"balancers"`
}

// RuleView is what node-agent reads of a routing rule. The raw members are lists that Xray
// also lets be written as one text with commas.
type RuleView struct {
	RuleTag       string          `json:"ruleTag"`
	OutboundTag   string          `json:"outboundTag"`
	BalancerTag   string          `json:"balancerTag"`
	User          json.RawMessage `json:"user"`
	InboundTag    json.RawMessage `json:"inboundTag"`
	Network       json.RawMessage `json:"network"`
	IP            json.RawMessage `json:"ip"`
	DomainMatcher json.RawMessage `json:"domainMatcher"`
}

// BalancerView is what node-agent reads of a balancer.
type BalancerView struct {
	Tag         string   `json:"tag"`
	Selector    []string `json:"selector"`
	FallbackTag string   `json:"fallbackTag"`
	Strategy    struct {
		Type     string          `json:"type"`
		Settings json.RawMessage `json:"settings"`
	} `json:"strategy"`
}

// RoutingView returns what node-agent reads of the state's Routing; an empty view for a
// state without one.
func (s State) RoutingView() *RoutingView {
	if s.routing != nil {
		return s.routing
	}
	v, _ := readRouting(s.Routing)
	return v
}

// WithRouting returns the state with routing and its view. The error says which member is
// of another kind than Xray's.
func (s State) WithRouting(routing json.RawMessage) (State, error) {
	var err error
	s.Routing = routing
	s.routing, err = readRouting(routing)
	return s, err
}

func readRouting(routing json.RawMessage) (*RoutingView, error) {
	v := &RoutingView{}
	if routing == nil {
		return v, nil
	}
	return v, json.Unmarshal(routing, v)
}
