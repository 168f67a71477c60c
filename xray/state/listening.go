package state

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"nodeagent/xray/rawjson"
)

// listening is the part of an inbound's object that says where it listens. Values that Xray
// accepts in any case are in lower case.
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

// readListening reads where an inbound listens. Unlike the rest of the view, a member of
// another kind is an error: without these members it is not known which ports are taken.
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

// http3 reports whether the inbound is XHTTP over QUIC. It is where TLS has h3 as its only
// ALPN (transport/internet/splithttp/hub.go).
func (l listening) http3() bool {
	switch s := l.StreamSettings; {
	case s.Network != "xhttp" && s.Network != "splithttp", s.Security != "tls":
		return false
	default:
		alpn := string(s.TLSSettings.ALPN)
		return alpn == `["h3"]` || alpn == `"h3"`
	}
}

// OverQUIC reports whether the inbound listens for QUIC.
func (in Inbound) OverQUIC() bool {
	where := in.View().listening
	return where.StreamSettings.Network == "hysteria" || where.http3()
}

// BySource reports whether the inbound gets datagrams that belong together by their source: over mKCP, and
// of protocols that take datagrams beside streams.
func (in Inbound) BySource() bool {
	where := in.View().listening
	if network := where.StreamSettings.Network; network == "kcp" || network == "mkcp" {
		return true
	}
	listens := Protocols[in.Protocol].Listens
	return (listens == OnTCPAndUDP || listens == OnChosenNetworks) && slices.Contains(in.Networks(), "udp")
}

// Networks returns the networks on which the inbound listens on its ports: tcp, udp or
// both.
func (in Inbound) Networks() []string {
	where := in.View().listening
	if slices.Contains(OverUDP, where.StreamSettings.Network) || where.http3() {
		return []string{"udp"}
	}
	switch Protocols[in.Protocol].Listens {
	case OnUDP:
		return []string{"udp"}
	case OnChosenNetworks:
		return in.ChosenNetworks()
	case OnTCPAndUDP:
		if where.Settings.UDP {
			return []string{"tcp", "udp"}
		}
	case OnNothing:
		return nil
	case OnTCP:
	}
	return []string{"tcp"}
}

// NetworkSetting returns settings.network in lower case: a list, or one text with commas.
func (in Inbound) NetworkSetting() json.RawMessage { return in.View().listening.Settings.Network }

// ChosenNetworks returns the networks that settings.network chooses; TCP where it chooses
// none.
func (in Inbound) ChosenNetworks() []string {
	raw := string(in.NetworkSetting())
	list := rawjson.StringList(raw)
	if raw == "" || raw == "null" {
		list = []string{"tcp"}
	}
	return slices.DeleteFunc([]string{"tcp", "udp"}, func(network string) bool { return !slices.Contains(list, network) })
}

// OverUDP are the transports that use only UDP, and no unix sockets.
var OverUDP = []string{"kcp", "mkcp", "hysteria"}

// NetworkUnix is the Network of a Binding to a unix socket.
const NetworkUnix = "unix"

// UnixPath reads an inbound's listen member. It returns the path of a unix socket, "@name" for
// an abstract one, and its mode in octal, empty where none is given. The path is empty where
// listen is no unix socket.
func UnixPath(listen string) (path, mode string) {
	listen = strings.TrimSpace(listen)
	switch {
	case strings.HasPrefix(listen, "@"):
		return listen, ""
	case !strings.HasPrefix(listen, "/"):
		return "", ""
	}
	if parts := strings.Split(listen, ","); len(parts) == 2 {
		listen, mode = parts[0], parts[1]
	}
	return filepath.Clean(listen), mode
}
