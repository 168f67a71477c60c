package state

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"nodeagent/xray/rawjson"
)

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
func ReadListening(config json.RawMessage) (listening, error) {
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

func (in Inbound) Networks(where listening) []string {
	switch {
	case in.Protocol == "wireguard" || in.Protocol == "hysteria":
		return []string{"udp"}
	case slices.Contains(OverUDP, where.StreamSettings.Network) || where.http3():
		return []string{"udp"}
	case slices.Contains(OnChosenNetworks, in.Protocol):
		return where.ChosenNetworks()
	case (in.Protocol == "socks" || in.Protocol == "mixed") && where.Settings.UDP:
		return []string{"tcp", "udp"}
	}
	return []string{"tcp"}
}

// onChosenNetworks are the protocols whose settings choose the networks.
var OnChosenNetworks = []string{"shadowsocks", "dokodemo-door", "tunnel"}

// chosenNetworks are those that an inbound's settings choose: TCP where they choose none.
func (l listening) ChosenNetworks() []string {
	list := rawjson.StringList(string(l.Settings.Network))
	if raw := string(l.Settings.Network); raw == "" || raw == "null" {
		list = []string{"tcp"}
	}
	return slices.DeleteFunc([]string{"tcp", "udp"}, func(network string) bool { return !slices.Contains(list, network) })
}

// onUnixSockets are the protocols that listen on unix sockets.
var OnUnixSockets = []string{"vless", "vmess", "trojan", "http"}

// overUDP are the transports that have no TCP, and no unix sockets.
var OverUDP = []string{"kcp", "mkcp", "hysteria"}

// networkUnix is the Network of a Binding to a unix socket.
const NetworkUnix = "unix"

// UnixPath reads an inbound's listen member: the path of a unix socket, "@name" where
// it is abstract, and its mode, in octal, where one is given. The path is empty of what
// is no unix socket.
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
