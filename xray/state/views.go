package state

import (
	"encoding/json"
	"slices"
	"strings"
)

// warnedInbound is what warnings look at.
type WarnedInbound struct {
	Listen   string `json:"listen"`
	Settings struct {
		Method   string            `json:"method"`
		Auth     string            `json:"auth"`
		Accounts []json.RawMessage `json:"accounts"`

		FollowRedirect bool `json:"followRedirect"`
		Fallbacks      []struct {
			Dest json.RawMessage `json:"dest"`
		} `json:"fallbacks"`
	} `json:"settings"`
	StreamSettings warnedStream `json:"streamSettings"`
	Sniffing       struct {
		DestOverride json.RawMessage `json:"destOverride"`
	} `json:"sniffing"`
}

// warned passes over a member of an odd kind, and reads the others.
func WarnedOf(in Inbound) WarnedInbound {
	var w WarnedInbound
	_ = json.Unmarshal(in.Config, &w)
	return w
}

// warnedStream is what warnings look at in streamSettings.
type warnedStream struct {
	Network  string `json:"network"`
	Security string `json:"security"`
	Sockopt  struct {
		AcceptProxyProtocol  bool     `json:"acceptProxyProtocol"`
		TrustedXForwardedFor []string `json:"trustedXForwardedFor"`
		TProxy               string   `json:"tproxy"`
	} `json:"sockopt"`
	TCPSettings         warnedTransport `json:"tcpSettings"`
	RawSettings         warnedTransport `json:"rawSettings"`
	WSSettings          warnedTransport `json:"wsSettings"`
	HTTPUpgradeSettings warnedTransport `json:"httpupgradeSettings"`
	TLSSettings         struct {
		Certificates []Certificate `json:"certificates"`
	} `json:"tlsSettings"`
}

type warnedTransport struct {
	AcceptProxyProtocol bool `json:"acceptProxyProtocol"`
}

// proxyProtocol tells whether the PROXY protocol is read, which a transport's own
// settings can say too.
func (s warnedStream) ProxyProtocol() bool {
	var own bool
	switch strings.ToLower(s.Network) {
	case "", "tcp", "raw":
		own = s.TCPSettings.AcceptProxyProtocol || s.RawSettings.AcceptProxyProtocol
	case "ws", "websocket":
		own = s.WSSettings.AcceptProxyProtocol
	case "httpupgrade":
		own = s.HTTPUpgradeSettings.AcceptProxyProtocol
	}
	return own || s.Sockopt.AcceptProxyProtocol
}

// forwarded tells whether a request's headers can name a client's address.
func (s warnedStream) Forwarded() bool {
	overHTTP := []string{"ws", "websocket", "httpupgrade", "xhttp", "splithttp", "grpc"}
	return len(s.Sockopt.TrustedXForwardedFor) > 0 && slices.Contains(overHTTP, strings.ToLower(s.Network))
}

// Certificate is Xray's object for one, as far as its contents go.
type Certificate struct {
	CertificateFile string   `json:"certificateFile"`
	KeyFile         string   `json:"keyFile"`
	Certificate     []string `json:"certificate"`
	Key             []string `json:"key"`
	Usage           string   `json:"usage"`
}
