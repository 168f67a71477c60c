package share

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Which form has words for which inbound is what the table of docs/links.md says. The test prints it.
// That each of these connects, and counts to the byte, is tried with the clients themselves by
// TestSubscriptionLinks.
func TestTableOfForms(t *testing.T) {
	const reality = `"security":"reality","realitySettings":{"privateKey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8","serverNames":["b.example"],"shortIds":["0123"]}`
	securities := []struct{ name, settings string }{{"none", `"security":"none"`}, {"TLS", `"security":"tls","tlsSettings":{"serverName":"b.example"}`}, {"REALITY", reality}}
	transports := []struct{ name, settings string }{
		{"raw TCP", `"network":"raw"`},
		{"raw TCP with an HTTP header", `"network":"raw","rawSettings":{"header":{"type":"http"}}`},
		{"WebSocket", `"network":"ws"`},
		{"HTTPUpgrade", `"network":"httpupgrade"`},
		{"gRPC", `"network":"grpc"`},
		{"gRPC, multi mode", `"network":"grpc","grpcSettings":{"multiMode":true}`},
		{"XHTTP", `"network":"xhttp"`},
		{"mKCP", `"network":"kcp"`},
		{"raw TCP with masks", `"network":"raw","finalmask":{"tcp":[{"type":"fragment"}]}`},
	}
	forms := []func(Endpoint) error{
		func(e Endpoint) error { _, err := Link(e); return err },
		func(e Endpoint) error { _, err := XrayOutbound(e); return err },
		func(e Endpoint) error { _, err := MihomoProxy(e); return err },
		func(e Endpoint) error { _, err := SingBoxOutbound(e); return err },
	}
	var table strings.Builder
	table.WriteString("| protocol | transport | security | link | Xray | mihomo | sing-box |\n|---|---|---|---|---|---|---|\n")
	row := func(protocol, transport, security, settings, stream string) {
		e, err := Read(Inbound{Protocol: protocol, Config: json.RawMessage(`{"settings":` + settings + `,"streamSettings":{` + stream + `}}`)})
		if err != nil {
			t.Fatalf("%s: %v", stream, err)
		}
		e.Name, e.Host, e.Port = "n", "h.example", 1
		if w := e.Account.WireGuard; w != nil {
			w.PrivateKey, w.Addresses = wireGuardClient, []string{"10.0.0.2/32"}
		}
		table.WriteString("| " + protocol + " | " + transport + " | " + security)
		for _, form := range forms {
			word := "yes"
			if form(e) != nil {
				word = "–"
			}
			table.WriteString(" | " + word)
		}
		table.WriteString(" |\n")
	}
	for _, protocol := range []string{"vless", "vmess", "trojan"} {
		for _, transport := range transports {
			for _, security := range securities {
				if security.name == "REALITY" && !strings.Contains("raw TCP gRPC XHTTP", transport.name) {
					continue // Xray has REALITY over these alone
				}
				row(protocol, transport.name, security.name, "{}", transport.settings+","+security.settings)
			}
		}
	}
	row("vless", "raw TCP, VLESS encryption", "none", `{"decryption":"mlkem768x25519plus.native.600s.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}`, `"network":"raw"`)
	row("shadowsocks", "AEAD", "none", `{"method":"aes-256-gcm"}`, `"network":"raw"`)
	row("shadowsocks", "2022", "none", `{"method":"2022-blake3-aes-128-gcm","password":"AAAAAAAAAAAAAAAAAAAAAA=="}`, `"network":"raw"`)
	row("hysteria", "QUIC", "TLS", "{}", `"network":"hysteria","security":"tls"`)
	row("hysteria", "QUIC with salamander", "TLS", "{}", `"network":"hysteria","security":"tls","finalmask":{"udp":[{"type":"salamander","settings":{"password":"p"}}]}`)
	row("hysteria", "QUIC with other masks", "TLS", "{}", `"network":"hysteria","security":"tls","finalmask":{"udp":[{"type":"noise"}]}`)
	for _, protocol := range []string{"socks", "http"} {
		for _, security := range securities[:2] {
			row(protocol, "raw TCP", security.name, "{}", `"network":"raw",`+security.settings)
		}
	}
	row("wireguard", "UDP", "none", `{"secretKey":"`+wireGuardServer+`"}`, `"network":"raw"`)
	t.Log("\n" + table.String())
	document, err := os.ReadFile("../../../../docs/links.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(document), table.String()) {
		t.Error("docs/links.md has another table")
	}
}
