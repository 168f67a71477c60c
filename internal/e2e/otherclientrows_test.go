package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"testing"
)

// outboundOf makes the outbound of a client for a subscription, in the client's own words. It
// leaves out the outbound's name.
type outboundOf func(port int, sub Subscription) map[string]any

// otherRow is an inbound of the node with the outbounds of programs that are no Xray.
type otherRow struct {
	protocolRow
	flow            string
	singBox, mihomo outboundOf // nil: this program has no such outbound
	tcpOnly         bool
}

// otherSecurity is TLS or REALITY in the words of the node and of each client.
type otherSecurity struct {
	name                  string
	node, singBox, mihomo map[string]any
	mihomoName            string // the text of the member "servername"
}

// securities are those of the rows. certFile has the certificate of site.test, whose
// fingerprint is fingerprint; site is the address of a site with that name.
func securities(t *testing.T, certFile, keyFile, fingerprint, site string) (plain, overTLS, reality otherSecurity) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString
	public := text(key.PublicKey().Bytes())
	overTLS = otherSecurity{
		name: " and TLS", mihomoName: "site.test",
		node:    map[string]any{"security": "tls", "tlsSettings": map[string]any{"certificates": []any{map[string]any{"certificateFile": certFile, "keyFile": keyFile}}, "alpn": []string{"h3", "h2", "http/1.1"}}},
		singBox: map[string]any{"enabled": true, "server_name": "site.test", "certificate_path": certFile, "utls": map[string]any{"enabled": true, "fingerprint": "chrome"}},
		mihomo:  map[string]any{"tls": true, "fingerprint": fingerprint, "client-fingerprint": "chrome"},
	}
	reality = otherSecurity{
		name: " and REALITY", mihomoName: "site.test",
		// Both programs say that they are Xray 1.8: sing-box in common/tls/reality_client.go,
		// mihomo in component/tls/reality.go.
		node: map[string]any{"security": "reality", "realitySettings": map[string]any{
			"dest": site, "serverNames": []any{"site.test"}, "privateKey": text(key.Bytes()), "shortIds": []any{"01"}, "minClientVer": "1.8.0",
		}},
		singBox: map[string]any{
			"enabled": true, "server_name": "site.test", "utls": map[string]any{"enabled": true, "fingerprint": "chrome"},
			"reality": map[string]any{"enabled": true, "public_key": public, "short_id": "01"},
		},
		mihomo: map[string]any{"tls": true, "client-fingerprint": "chrome", "reality-opts": map[string]any{"public-key": public, "short-id": "01"}},
	}
	return otherSecurity{}, overTLS, reality
}

// otherTransport is a transport in the words of the node and of each client.
type otherTransport struct {
	name                  string
	node, singBox, mihomo map[string]any
}

func otherTransports() (tcp, ws, upgrade, grpc otherTransport) {
	tcp = otherTransport{name: "TCP", node: map[string]any{"network": "raw"}}
	ws = otherTransport{
		"WebSocket", transport("ws", map[string]any{"path": "/ws"}),
		map[string]any{"type": "ws", "path": "/ws"},
		map[string]any{"network": "ws", "ws-opts": map[string]any{"path": "/ws"}},
	}
	upgrade = otherTransport{
		"HTTPUpgrade", transport("httpupgrade", map[string]any{"path": "/up"}),
		map[string]any{"type": "httpupgrade", "path": "/up"},
		map[string]any{"network": "ws", "ws-opts": map[string]any{"path": "/up", "v2ray-http-upgrade": true}},
	}
	grpc = otherTransport{
		"gRPC", transport("grpc", map[string]any{"serviceName": "svc"}),
		map[string]any{"type": "grpc", "service_name": "svc"},
		map[string]any{"network": "grpc", "grpc-opts": map[string]any{"grpc-service-name": "svc"}},
	}
	return tcp, ws, upgrade, grpc
}

// streamRow is a row of a protocol that has transports and TLS. singBox and mihomo are the
// members that only this protocol has; they are called for each subscription.
func streamRow(protocol string, settings map[string]any, by otherTransport, over otherSecurity, flow string, singBox, mihomo func(sub Subscription) map[string]any) otherRow {
	row := otherRow{flow: flow}
	row.name, row.protocol, row.settings = protocol+" over "+by.name+over.name, protocol, settings
	if flow != "" {
		row.name += " with Vision"
	}
	row.stream = merged(by.node, over.node)
	row.singBox = func(port int, sub Subscription) map[string]any {
		out := merged(map[string]any{"type": protocol, "server": "127.0.0.1", "server_port": port}, singBox(sub))
		if by.singBox != nil {
			out["transport"] = by.singBox
		}
		if over.singBox != nil {
			out["tls"] = over.singBox
		}
		if flow != "" {
			out["flow"] = flow
		}
		return out
	}
	row.mihomo = func(port int, sub Subscription) map[string]any {
		out := merged(map[string]any{"type": protocol, "server": "127.0.0.1", "port": port, "udp": true}, mihomo(sub), by.mihomo, over.mihomo)
		if over.mihomoName != "" {
			out["servername"], out["sni"] = over.mihomoName, over.mihomoName
		}
		if flow != "" {
			out["flow"] = flow
		}
		return out
	}
	return row
}

// merged has the members of all objects.
func merged(objects ...map[string]any) map[string]any {
	out := map[string]any{}
	for _, object := range objects {
		maps.Copy(out, object)
	}
	return out
}

// plainRow is a row of a protocol that has neither transports nor TLS.
func plainRow(row protocolRow, singBox, mihomo func(sub Subscription) map[string]any) otherRow {
	return otherRow{
		protocolRow: row,
		singBox: func(port int, sub Subscription) map[string]any {
			return merged(map[string]any{"server": "127.0.0.1", "server_port": port}, singBox(sub))
		},
		mihomo: func(port int, sub Subscription) map[string]any {
			return merged(map[string]any{"server": "127.0.0.1", "port": port, "udp": true}, mihomo(sub))
		},
	}
}

// otherRows are the protocols, transports and securities that sing-box or mihomo have too.
// Neither has mKCP or XHTTP, nor Xray's mux.
func otherRows(t *testing.T, plain, overTLS, reality otherSecurity) []otherRow {
	t.Helper()
	tcp, ws, upgrade, grpc := otherTransports()
	vless := func(by otherTransport, over otherSecurity, flow string) otherRow {
		id := func(sub Subscription) map[string]any { return map[string]any{"uuid": sub.UUID} }
		return streamRow("vless", decryption, by, over, flow, id, func(sub Subscription) map[string]any {
			return map[string]any{"uuid": sub.UUID, "packet-encoding": "xudp"}
		})
	}
	vmess := func(by otherTransport, over otherSecurity) otherRow {
		return streamRow("vmess", map[string]any{}, by, over, "",
			func(sub Subscription) map[string]any {
				// With TLS sing-box takes "auto" for "zero" (protocol/vmess/outbound.go:99), which
				// Xray no longer decodes (proxy/vmess/encoding/server.go:242).
				return map[string]any{"uuid": sub.UUID, "security": "aes-128-gcm", "packet_encoding": "xudp"}
			},
			func(sub Subscription) map[string]any {
				return map[string]any{"uuid": sub.UUID, "cipher": "auto", "alterId": 0, "packet-encoding": "xudp"}
			})
	}
	trojan := func(by otherTransport, over otherSecurity) otherRow {
		password := func(sub Subscription) map[string]any { return map[string]any{"password": sub.UUID} }
		return streamRow("trojan", map[string]any{}, by, over, "", password, password)
	}
	const vision = "xtls-rprx-vision"
	return append(
		[]otherRow{
			vless(tcp, plain, ""), vless(ws, plain, ""), vless(upgrade, plain, ""), vless(grpc, plain, ""),
			vless(tcp, overTLS, ""), vless(ws, overTLS, ""), vless(upgrade, overTLS, ""), vless(grpc, overTLS, ""),
			vless(tcp, reality, ""), vless(grpc, reality, ""), vless(tcp, overTLS, vision), vless(tcp, reality, vision),
			encryptedRow(t),
			vmess(tcp, plain), vmess(ws, plain), vmess(upgrade, plain), vmess(grpc, plain),
			vmess(tcp, overTLS), vmess(ws, overTLS), vmess(upgrade, overTLS), vmess(grpc, overTLS), vmess(tcp, reality),
			trojan(tcp, overTLS), trojan(ws, overTLS), trojan(upgrade, overTLS), trojan(grpc, overTLS),
			trojan(tcp, reality), trojan(grpc, reality),
		}, rowsWithoutTransports(overTLS)...)
}

// encryptedRow is VLESS with its own encryption, which sing-box does not have.
func encryptedRow(t *testing.T) otherRow {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	text := base64.RawURLEncoding.EncodeToString
	row := plainRow(protocolRow{
		name: "vless with encryption", protocol: "vless",
		settings: map[string]any{"decryption": "mlkem768x25519plus.native.600s." + text(key.Bytes())},
	}, nil, func(sub Subscription) map[string]any {
		return map[string]any{"type": "vless", "uuid": sub.UUID, "encryption": "mlkem768x25519plus.native.0rtt." + text(key.PublicKey().Bytes()), "packet-encoding": "xudp"}
	})
	row.singBox = nil
	return row
}

func rowsWithoutTransports(overTLS otherSecurity) []otherRow {
	const aead, blake3 = "aes-256-gcm", "2022-blake3-aes-128-gcm"
	password2022 := func(sub Subscription) string {
		sum := sha256.Sum256([]byte(sub.UUID))
		return serverKey + ":" + base64.StdEncoding.EncodeToString(sum[:16])
	}
	login := func(kind string) func(sub Subscription) map[string]any {
		return func(sub Subscription) map[string]any {
			return map[string]any{"type": kind, "username": sub.UUID, "password": sub.UUID}
		}
	}
	web := plainRow(protocolRow{name: "http", protocol: "http", settings: map[string]any{}}, login("http"), login("http"))
	web.tcpOnly = true
	withoutUDP := web.mihomo
	web.mihomo = func(port int, sub Subscription) map[string]any {
		out := withoutUDP(port, sub)
		delete(out, "udp")
		return out
	}
	return []otherRow{
		plainRow(shadowsocksRow,
			func(sub Subscription) map[string]any {
				return map[string]any{"type": "shadowsocks", "method": aead, "password": sub.UUID}
			},
			func(sub Subscription) map[string]any {
				return map[string]any{"type": "ss", "cipher": aead, "password": sub.UUID}
			}),
		plainRow(ss2022Row,
			func(sub Subscription) map[string]any {
				return map[string]any{"type": "shadowsocks", "method": blake3, "password": password2022(sub)}
			},
			func(sub Subscription) map[string]any {
				return map[string]any{"type": "ss", "cipher": blake3, "password": password2022(sub)}
			}),
		hysteria2Row("hysteria", overTLS, nil, nil, nil),
		hysteria2Row("hysteria with salamander", overTLS, map[string]any{"password": "hush-hush"},
			map[string]any{"obfs": map[string]any{"type": "salamander", "password": "hush-hush"}},
			map[string]any{"obfs": "salamander", "obfs-password": "hush-hush"}),
		withoutMihomo(hysteria2Row("hysteria with salamander as Gecko", overTLS, map[string]any{"password": "hush-hush", "packetSize": "600-1200"},
			map[string]any{"obfs": map[string]any{"type": "gecko", "password": "hush-hush", "min_packet_size": 600, "max_packet_size": 1200}}, nil)),
		plainRow(socksRow, login("socks"), login("socks5")),
		web,
	}
}

func withoutMihomo(row otherRow) otherRow {
	row.mihomo = nil
	return row
}

// hysteria2Row is Hysteria 2, whose datagrams have the mask salamander, nil for none.
func hysteria2Row(name string, overTLS otherSecurity, salamander, singBox, mihomo map[string]any) otherRow {
	stream := merged(map[string]any{"network": "hysteria", "hysteriaSettings": map[string]any{"version": 2}}, overTLS.node)
	if salamander != nil {
		stream = masked(stream, "udp", map[string]any{"type": "salamander", "settings": salamander})
	}
	certificate := map[string]any{"enabled": true, "server_name": "site.test", "certificate_path": overTLS.singBox["certificate_path"], "alpn": []string{"h3"}}
	return plainRow(protocolRow{name: name, protocol: "hysteria", settings: map[string]any{"version": 2}, stream: stream},
		func(sub Subscription) map[string]any {
			return merged(map[string]any{"type": "hysteria2", "password": sub.UUID, "tls": certificate}, singBox)
		},
		func(sub Subscription) map[string]any {
			return merged(map[string]any{"type": "hysteria2", "password": sub.UUID, "sni": "site.test", "fingerprint": overTLS.mihomo["fingerprint"], "alpn": []string{"h3"}}, mihomo)
		})
}
