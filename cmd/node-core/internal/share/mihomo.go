package share

import (
	"net/url"
	"strconv"
)

// MihomoProxy returns the endpoint as an entry of "proxies" in a configuration of mihomo (Clash),
// with Name as its name. What mihomo 1.19 does not have is *Unavailable: XHTTP, mKCP, and masks
// other than Hysteria's.
func MihomoProxy(e Endpoint) (map[string]any, error) {
	proxy := map[string]any{"name": e.Name, "server": e.Host, "port": e.Port, "udp": true}
	set := func(name string, value any) { proxy[name] = value }
	s, a := e.Stream, e.Account
	switch e.Protocol {
	case "vless":
		set("type", "vless")
		set("uuid", a.ID)
		set("packet-encoding", "xudp")
		if a.Flow != "" {
			set("flow", a.Flow)
		}
		if a.Encryption != "none" {
			set("encryption", a.Encryption)
		}
	case "vmess":
		set("type", "vmess")
		set("uuid", a.ID)
		set("cipher", "auto")
		set("alterId", 0)
		set("packet-encoding", "xudp")
	case "trojan":
		set("type", "trojan")
		set("password", a.Password)
		if s.Security == "none" {
			return nil, unavailable("mihomo has Trojan only over TLS or REALITY")
		}
	case "shadowsocks":
		set("type", "ss")
		set("cipher", a.Method)
		set("password", a.Password)
		return proxy, e.isPlain()
	case "hysteria":
		return proxy, e.mihomoHysteria(proxy)
	case "wireguard":
		return proxy, e.mihomoWireGuard(proxy)
	case "socks", "http":
		if err := e.isPlain(); err != nil && s.Security != "tls" {
			return nil, err
		}
		// adapter/outbound/socks5.go, NewSocks5
		if e.Protocol == "socks" && s.Security == "tls" && s.ServerName != "" && s.ServerName != e.Host {
			return nil, unavailable("mihomo's SOCKS over TLS asks for the certificate of the address alone")
		}
		set("type", map[string]string{"socks": "socks5", "http": "http"}[e.Protocol])
		set("username", a.ID)
		set("password", a.Password)
		if e.Protocol == "http" {
			delete(proxy, "udp")
		}
	default:
		return nil, unavailable("%s is no proxy of mihomo", e.Protocol)
	}
	if isSet(s.Masks) {
		return nil, unavailable("mihomo does not have the masks of Xray's finalmask")
	}
	e.mihomoSecurity(proxy)
	return proxy, s.mihomoTransport(proxy)
}

func (e Endpoint) mihomoHysteria(proxy map[string]any) error {
	obfs, others, err := e.salamander()
	if err == nil && others {
		err = unavailable("mihomo does not have the masks of Xray's finalmask")
	}
	proxy["type"], proxy["password"], proxy["alpn"] = "hysteria2", e.Account.Password, []string{"h3"}
	if e.Stream.ServerName != "" {
		proxy["sni"] = e.Stream.ServerName
	}
	if obfs != "" {
		proxy["obfs"], proxy["obfs-password"] = "salamander", obfs
	}
	return err
}

func (e Endpoint) mihomoSecurity(proxy map[string]any) {
	s := e.Stream
	if s.Security == "none" {
		return
	}
	proxy["tls"] = true
	if s.ServerName != "" {
		name := "servername"
		if e.Protocol == "trojan" || e.Protocol == "socks" || e.Protocol == "http" {
			name = "sni"
		}
		proxy[name] = s.ServerName
	}
	if len(s.ALPN) > 0 {
		proxy["alpn"] = s.ALPN
	}
	proxy["client-fingerprint"] = "chrome"
	if s.Fingerprint != "" {
		proxy["client-fingerprint"] = s.Fingerprint
	}
	if s.Security == "reality" {
		proxy["reality-opts"] = map[string]any{"public-key": s.PublicKey, "short-id": s.ShortID}
	}
}

func (s Stream) mihomoTransport(proxy map[string]any) error {
	switch s.Network {
	case "tcp":
		if s.HTTPHeader && proxy["type"] == "trojan" {
			return unavailable("mihomo does not have the HTTP header of raw TCP for Trojan")
		}
		if s.HTTPHeader {
			options := map[string]any{"path": []string{"/"}}
			if s.Path != "" {
				options["path"] = []string{s.Path}
			}
			if s.Host != "" {
				options["headers"] = map[string]any{"Host": []string{s.Host}}
			}
			proxy["network"], proxy["http-opts"] = "http", options
		}
	case "ws", "httpupgrade":
		path, early := earlyData(s.Path)
		options := map[string]any{"path": path}
		if headers := s.allHeaders(); len(headers) > 0 {
			options["headers"] = headers
		}
		switch {
		case s.Network == "httpupgrade":
			options["v2ray-http-upgrade"] = true
		case early > 0:
			options["max-early-data"], options["early-data-header-name"] = early, "Sec-WebSocket-Protocol"
		}
		proxy["network"], proxy["ws-opts"] = "ws", options
	case "grpc":
		if s.Multi {
			return unavailable("mihomo does not have the multi mode of gRPC")
		}
		proxy["network"], proxy["grpc-opts"] = "grpc", map[string]any{"grpc-service-name": s.Service}
	default:
		return unavailable("mihomo does not have the transport %s", s.Network)
	}
	return nil
}

// allHeaders returns the headers with the host.
func (s Stream) allHeaders() map[string]any {
	headers := map[string]any{}
	for name, value := range s.Headers {
		headers[name] = value
	}
	if s.Host != "" {
		headers["Host"] = s.Host
	}
	return headers
}

// earlyData takes the parameter "ed" out of a path: Xray reads from it how many bytes a client
// sends in the first request's header (infra/conf/transport_method.go, WebSocketConfig.Build).
func earlyData(path string) (rest string, size int) {
	u, err := url.Parse(path)
	if err != nil || u.Query().Get("ed") == "" {
		return path, 0
	}
	query := u.Query()
	size, _ = strconv.Atoi(query.Get("ed"))
	query.Del("ed")
	u.RawQuery = query.Encode()
	return u.String(), size
}
