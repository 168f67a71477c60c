package share

import (
	"encoding/json"
	"maps"
)

// XrayOutbound returns the endpoint as an outbound of Xray 26.3 or later, with Name as its tag. It
// can say everything that an inbound of Xray needs.
func XrayOutbound(e Endpoint) (map[string]any, error) {
	server := map[string]any{"address": e.Host, "port": e.Port}
	settings := map[string]any{}
	switch a := e.Account; e.Protocol {
	case "vless":
		user := map[string]any{"id": a.ID, "encryption": a.Encryption}
		if a.Flow != "" {
			user["flow"] = a.Flow
		}
		server["users"] = []any{user}
		settings["vnext"] = []any{server}
	case "vmess":
		server["users"] = []any{map[string]any{"id": a.ID, "security": "auto"}}
		settings["vnext"] = []any{server}
	case "trojan":
		server["password"] = a.Password
		settings["servers"] = []any{server}
	case "shadowsocks":
		server["method"], server["password"] = a.Method, a.Password
		settings["servers"] = []any{server}
	case "socks", "http":
		server["users"] = []any{map[string]any{"user": a.ID, "pass": a.Password}}
		settings["servers"] = []any{server}
	case "hysteria":
		settings = server
		settings["version"] = 2
	case "wireguard":
		var err error
		if settings, err = e.xrayWireGuard(); err != nil {
			return nil, err
		}
	default:
		return nil, unavailable("%s is no outbound of Xray", e.Protocol)
	}
	outbound := map[string]any{"protocol": e.Protocol, "settings": settings}
	if e.Protocol != "wireguard" {
		outbound["streamSettings"] = e.Stream.xray(e)
	} else if isSet(e.Stream.Masks) {
		outbound["streamSettings"] = map[string]any{"finalmask": e.Stream.Masks}
	}
	if e.Name != "" {
		outbound["tag"] = e.Name
	}
	return outbound, nil
}

// xraySettingsNames are the members of streamSettings by the networks' names in links.
var xraySettingsNames = map[string]string{
	"tcp": "rawSettings", "ws": "wsSettings", "httpupgrade": "httpupgradeSettings", "grpc": "grpcSettings",
	"xhttp": "xhttpSettings", "kcp": "kcpSettings", "hysteria": "hysteriaSettings",
}

func (s Stream) xray(e Endpoint) map[string]any {
	stream := map[string]any{"network": s.Network, "security": s.Security}
	if s.Network == "tcp" {
		stream["network"] = "raw"
	}
	object := map[string]any{}
	for name, value := range s.settings {
		object[name] = value
	}
	if s.Network == "hysteria" {
		object["version"], object["auth"] = 2, e.Account.Password
	}
	if len(object) > 0 {
		stream[xraySettingsNames[s.Network]] = object
	}
	if isSet(s.Masks) {
		stream["finalmask"] = s.Masks
	}
	switch s.Security {
	case "tls":
		stream["tlsSettings"] = s.tls(map[string]any{})
	case "reality":
		stream["realitySettings"] = map[string]any{
			"serverName": s.ServerName, "fingerprint": s.Fingerprint, "publicKey": s.PublicKey, "shortId": s.ShortID, "spiderX": "/",
		}
	}
	return stream
}

func (s Stream) tls(settings map[string]any) map[string]any {
	if s.ServerName != "" {
		settings["serverName"] = s.ServerName
	}
	if len(s.ALPN) > 0 {
		settings["alpn"] = s.ALPN
	}
	if s.Fingerprint != "" {
		settings["fingerprint"] = s.Fingerprint
	}
	return settings
}

// XrayConfig returns a whole configuration of Xray: a SOCKS and an HTTP inbound on loopback, and
// the endpoints as outbounds, of which the first one is used.
func XrayConfig(outbounds []map[string]any) (json.RawMessage, error) {
	all := make([]map[string]any, 0, len(outbounds)+1)
	for _, o := range outbounds {
		all = append(all, maps.Clone(o))
	}
	all = append(all, map[string]any{"tag": "direct", "protocol": "freedom"})
	return json.Marshal(map[string]any{
		"log": map[string]any{"loglevel": "warning"},
		"inbounds": []any{
			map[string]any{"tag": "socks", "listen": "127.0.0.1", "port": 10808, "protocol": "socks", "settings": map[string]any{"udp": true}},
			map[string]any{"tag": "http", "listen": "127.0.0.1", "port": 10809, "protocol": "http"},
		},
		"outbounds": all,
	})
}
