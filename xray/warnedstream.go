package xray

import (
	"encoding/json"
	"slices"
	"strings"
)

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
func (s warnedStream) proxyProtocol() bool {
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
func (s warnedStream) forwarded() bool {
	overHTTP := []string{"ws", "websocket", "httpupgrade", "xhttp", "splithttp", "grpc"}
	return len(s.Sockopt.TrustedXForwardedFor) > 0 && slices.Contains(overHTTP, strings.ToLower(s.Network))
}

// isOpenProxy tells a proxy that asks nobody for an account.
func (w warnedInbound) isOpenProxy(protocol string) bool {
	switch protocol {
	case "http":
		return len(w.Settings.Accounts) == 0
	case "socks", "mixed":
		return w.Settings.Auth != "password"
	}
	return false
}

// stringList reads Xray's list of texts: an array, or one text with commas.
func stringList(raw string) []string {
	var list []string
	if json.Unmarshal([]byte(raw), &list) == nil {
		return list
	}
	var text string
	if json.Unmarshal([]byte(raw), &text) != nil {
		return nil
	}
	return strings.Split(text, ",")
}
