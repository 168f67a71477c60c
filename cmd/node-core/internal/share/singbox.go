package share

// SingBoxOutbound returns the endpoint as an outbound of sing-box 1.12 or later, with Name as its
// tag. What sing-box does not have is *Unavailable: XHTTP, mKCP, a raw header, VLESS encryption,
// gRPC's multi mode, and masks other than Hysteria's.
func SingBoxOutbound(e Endpoint) (map[string]any, error) {
	outbound := map[string]any{"tag": e.Name, "server": e.Host, "server_port": e.Port}
	set := func(name string, value any) { outbound[name] = value }
	s, a := e.Stream, e.Account
	switch e.Protocol {
	case "vless":
		if a.Encryption != "none" {
			return nil, unavailable("sing-box does not have the encryption of VLESS")
		}
		set("type", "vless")
		set("uuid", a.ID)
		set("packet_encoding", "xudp")
		if a.Flow != "" {
			set("flow", a.Flow)
		}
	case "vmess":
		set("type", "vmess")
		set("uuid", a.ID)
		// With TLS sing-box takes "auto" for "zero" (protocol/vmess/outbound.go), which Xray does
		// not decode since 26.4.
		set("security", "aes-128-gcm")
		set("packet_encoding", "xudp")
	case "trojan":
		set("type", "trojan")
		set("password", a.Password)
	case "shadowsocks":
		set("type", "shadowsocks")
		set("method", a.Method)
		set("password", a.Password)
		return outbound, e.isPlain()
	case "hysteria":
		return outbound, e.singBoxHysteria(outbound)
	case "socks", "http":
		if err := e.isPlain(); err != nil && (e.Protocol == "socks" || s.Security != "tls") {
			return nil, err
		}
		set("type", e.Protocol)
		set("username", a.ID)
		set("password", a.Password)
	case "wireguard":
		return nil, unavailable("sing-box has WireGuard as an endpoint and not as an outbound")
	default:
		return nil, unavailable("%s is no outbound of sing-box", e.Protocol)
	}
	if isSet(s.Masks) {
		return nil, unavailable("sing-box does not have the masks of Xray's finalmask")
	}
	if tls := s.singBoxTLS(); tls != nil {
		set("tls", tls)
	}
	return outbound, s.singBoxTransport(outbound)
}

func (e Endpoint) singBoxHysteria(outbound map[string]any) error {
	obfs, others, err := e.salamander()
	if err == nil && others {
		err = unavailable("sing-box does not have the masks of Xray's finalmask")
	}
	tls := map[string]any{"enabled": true, "alpn": []string{"h3"}}
	if e.Stream.ServerName != "" {
		tls["server_name"] = e.Stream.ServerName
	}
	outbound["type"], outbound["password"], outbound["tls"] = "hysteria2", e.Account.Password, tls
	if obfs != "" {
		outbound["obfs"] = map[string]any{"type": "salamander", "password": obfs}
	}
	return err
}

// singBoxTLS returns the member "tls", nil for none.
func (s Stream) singBoxTLS() map[string]any {
	if s.Security == "none" {
		return nil
	}
	fingerprint := s.Fingerprint
	if fingerprint == "" {
		fingerprint = "chrome"
	}
	tls := map[string]any{"enabled": true, "utls": map[string]any{"enabled": true, "fingerprint": fingerprint}}
	if s.ServerName != "" {
		tls["server_name"] = s.ServerName
	}
	if len(s.ALPN) > 0 {
		tls["alpn"] = s.ALPN
	}
	if s.Security == "reality" {
		tls["reality"] = map[string]any{"enabled": true, "public_key": s.PublicKey, "short_id": s.ShortID}
	}
	return tls
}

func (s Stream) singBoxTransport(outbound map[string]any) error {
	switch s.Network {
	case "tcp":
		if s.HTTPHeader {
			return unavailable("sing-box does not have the HTTP header of raw TCP")
		}
	case "ws":
		path, early := earlyData(s.Path)
		transport := map[string]any{"type": "ws", "path": path}
		if headers := s.allHeaders(); len(headers) > 0 {
			transport["headers"] = headers
		}
		if early > 0 {
			transport["max_early_data"], transport["early_data_header_name"] = early, "Sec-WebSocket-Protocol"
		}
		outbound["transport"] = transport
	case "httpupgrade":
		path, _ := earlyData(s.Path)
		transport := map[string]any{"type": "httpupgrade", "path": path}
		if s.Host != "" {
			transport["host"] = s.Host
		}
		if len(s.Headers) > 0 {
			transport["headers"] = s.Headers
		}
		outbound["transport"] = transport
	case "grpc":
		if s.Multi {
			return unavailable("sing-box does not have the multi mode of gRPC")
		}
		outbound["transport"] = map[string]any{"type": "grpc", "service_name": s.Service}
	default:
		return unavailable("sing-box does not have the transport %s", s.Network)
	}
	return nil
}
