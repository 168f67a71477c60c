package e2e

import "maps"

// minecraft masks a transport as the Minecraft protocol.
func minecraft(stream map[string]any) map[string]any {
	return masked(stream, "tcp", map[string]any{"type": "xmc", "settings": map[string]any{
		"hostname": "mc.test", "password": "hush-hush", "profiles": []any{map[string]any{
			"username": "Player", "uuid": soleClient, "texturesValue": "dGV4dHVyZXM=", "texturesSignature": "c2lnbmF0dXJl",
		}},
	}})
}

// protocolRows are the pairs of a protocol and a transport that work together. VLESS over TCP,
// TLS and REALITY, with and without Vision, and WireGuard have other tests.
func protocolRows() []protocolRow {
	var (
		ws       = transport("ws", map[string]any{"path": "/ws"})
		upgrade  = transport("httpupgrade", map[string]any{"path": "/up"})
		grpc     = transport("grpc", map[string]any{"serviceName": "svc"})
		multi    = transport("grpc", map[string]any{"serviceName": "svc", "multiMode": true})
		xhttp    = transport("xhttp", map[string]any{"path": "/x"})
		packetUp = transport("xhttp", map[string]any{"path": "/x", "mode": "packet-up"})
		one      = transport("xhttp", map[string]any{"path": "/x", "mode": "stream-one"})
		streamUp = transport("xhttp", map[string]any{"path": "/x", "mode": "stream-up"})
		kcp      = transport("kcp", map[string]any{})
		overQUIC = with(maps.Clone(xhttp), "tlsSettings", map[string]any{"alpn": []string{"h3"}})
		// Xray 26.4 to 26.7 brought these.
		sessionIDs = transport("xhttp", map[string]any{"path": "/x", "mode": "packet-up", "sessionIDPlacement": "header", "sessionIDKey": "X-Id", "sessionIDTable": "ALPHABET", "sessionIDLength": "20-30"})
		legacy     = func(header, value string) map[string]any {
			return masked(transport("kcp", map[string]any{"cwndMultiplier": 2, "maxSendingWindow": 4 << 20}), "udp", map[string]any{"type": "mkcp-legacy", "settings": map[string]any{"header": header, "value": value}})
		}
		fragments = masked(map[string]any{"network": "raw"}, "tcp", map[string]any{"type": "fragment", "settings": map[string]any{"packets": "tlshello", "lengths": []any{"10-20", "30-40"}, "delays": []any{"1-2"}}})
		gecko     = masked(map[string]any{"network": "hysteria"}, "udp", map[string]any{"type": "salamander", "settings": map[string]any{"password": "hush-hush", "packetSize": "600-1200"}})
		bbr       = with(map[string]any{"network": "hysteria"}, "finalmask", map[string]any{"quicParams": map[string]any{"congestion": "bbr", "bbrProfile": "aggressive"}})
	)
	hysteria := func(name string, stream map[string]any) protocolRow {
		row := hysteriaRow.with(name, nil)
		row.stream = stream
		return row
	}
	vless := func(name string, stream map[string]any, tls bool) protocolRow {
		return protocolRow{"vless over " + name, "vless", decryption, stream, tls, vlessSettings, nil}
	}
	vmess := func(name string, stream map[string]any, tls bool) protocolRow {
		return protocolRow{"vmess over " + name, "vmess", map[string]any{}, stream, tls, func(port int, sub Subscription) map[string]any {
			return vnext(port, map[string]any{"id": sub.UUID, "security": "auto"})
		}, nil}
	}
	trojan := func(name string, stream map[string]any, tls bool) protocolRow {
		return protocolRow{"trojan over " + name, "trojan", map[string]any{}, stream, tls, trojanRow.outbound, nil}
	}
	return []protocolRow{
		vless("WebSocket", ws, false), vless("WebSocket and TLS", ws, true),
		vless("HTTPUpgrade", upgrade, false), vless("HTTPUpgrade and TLS", upgrade, true),
		vless("gRPC", grpc, false), vless("gRPC and TLS", grpc, true), vless("gRPC, multi, and TLS", multi, true),
		vless("XHTTP", xhttp, false), vless("XHTTP and TLS", xhttp, true), vless("XHTTP, packet-up, and TLS", packetUp, true),
		vless("XHTTP on HTTP/3", overQUIC, true),
		vless("XHTTP, stream-one, and TLS", one, true), vless("XHTTP, stream-up, and TLS", streamUp, true),
		vless("mKCP", kcp, false), vless("TLS", nil, true),
		vmess("TCP", nil, false), vmess("TLS", nil, true), vmess("WebSocket", ws, false), vmess("gRPC and TLS", grpc, true),
		vmess("XHTTP and TLS", xhttp, true), vmess("mKCP", kcp, false),
		trojanRow, trojan("WebSocket and TLS", ws, true), trojan("HTTPUpgrade and TLS", upgrade, true),
		trojan("gRPC and TLS", grpc, true), trojan("XHTTP and TLS", xhttp, true), trojan("mKCP", kcp, false),
		vless("XHTTP with sessions in a header, and TLS", sessionIDs, true), vless("raw in fragments, and TLS", fragments, true), vless("raw as Minecraft", minecraft(map[string]any{"network": "raw"}), false),
		vless("mKCP as DTLS", legacy("dtls", ""), false), vless("mKCP as DNS", legacy("dns", "a.test"), false), vless("mKCP with a password", legacy("", "hush-hush"), false),
		shadowsocksRow, ss2022Row, hysteriaRow, hysteria("with salamander as Gecko", gecko), hysteria("with a profile of BBR", bbr),
		socksRow,
		{"http", "http", map[string]any{}, nil, false, proxySettings, nil},
		vlessRow.with("with mux", mux), vless("gRPC and TLS", grpc, true).with("with mux", mux), trojanRow.with("with mux", mux),
		shadowsocksRow.with("with mux", mux), ss2022Row.with("with mux", mux), hysteriaRow.with("with mux", mux),
	}
}
