package share

import (
	"encoding/json"
	"strings"
	"testing"
)

const (
	wireGuardServer = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" // private
	wireGuardPublic = "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=" // of wireGuardServer
	wireGuardClient = "SPhYBYnHoEMAMq0Kqd3TNyWxS7yZaBqpVSeDrUiDZk0=" // private
)

func wireGuardEndpoint(t *testing.T, config string) Endpoint {
	t.Helper()
	e, err := Read(Inbound{Protocol: "wireguard", Config: json.RawMessage(config)})
	if err != nil {
		t.Fatal(err)
	}
	e.Name, e.Host, e.Port = "fra 1", "2001:db8::1", 51820
	w := e.Account.WireGuard
	w.PrivateKey, w.PreSharedKey, w.Addresses, w.KeepAlive = wireGuardClient, wireGuardServer, []string{"10.0.0.2/32", "fd00::2/128"}, 25
	return e
}

// A peer of WireGuard gets a link in the form of 3x-ui, the file of WireGuard's own programs, and a proxy
// of Xray and mihomo.
func TestWireGuard(t *testing.T) {
	// Keys of the server in each form that Xray takes.
	for _, key := range []string{wireGuardServer, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"} {
		e := wireGuardEndpoint(t, `{"settings":{"secretKey":"`+key+`","mtu":1380,"reserved":"AQID"}}`)
		if got := e.Account.WireGuard.ServerKey; got != wireGuardPublic {
			t.Errorf("of %s the public key is %s", key, got)
		}
	}
	e := wireGuardEndpoint(t, `{"settings":{"secretKey":"`+wireGuardServer+`"}}`)
	link, err := Link(e)
	if want := "wireguard://SPhYBYnHoEMAMq0Kqd3TNyWxS7yZaBqpVSeDrUiDZk0%3D@[2001:db8::1]:51820?address=10.0.0.2%2F32%2Cfd00%3A%3A2%2F128&keepalive=25&mtu=1420" +
		"&presharedkey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8%3D&publickey=j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8%3D#fra%201"; err != nil || link != want {
		t.Errorf("the link is\n%s, %v, want\n%s", link, err, want)
	}
	file, err := WireGuardConfig(e)
	if want := `[Interface]
PrivateKey = SPhYBYnHoEMAMq0Kqd3TNyWxS7yZaBqpVSeDrUiDZk0=
Address = 10.0.0.2/32, fd00::2/128
DNS = 1.1.1.1
MTU = 1420

[Peer]
PublicKey = j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=
PresharedKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
`; err != nil || file != want {
		t.Errorf("the file is\n%s, %v", file, err)
	}
	proxy, err := MihomoProxy(e)
	if err != nil || proxy["ip"] != "10.0.0.2/32" || proxy["ipv6"] != "fd00::2/128" || proxy["public-key"] != wireGuardPublic || proxy["private-key"] != wireGuardClient {
		t.Errorf("the proxy of mihomo is %v, %v", proxy, err)
	}
	outbound, err := XrayOutbound(e)
	raw, _ := json.Marshal(outbound)
	if err != nil || !strings.Contains(string(raw), `"endpoint":"[2001:db8::1]:51820"`) || strings.Contains(string(raw), "streamSettings") {
		t.Errorf("the outbound of Xray is %s, %v", raw, err)
	}
	masked := wireGuardEndpoint(t, `{"settings":{"secretKey":"`+wireGuardServer+`"},"streamSettings":{"finalmask":{"udp":[{"type":"noise"}]}}}`)
	if _, err := Link(masked); err == nil || !strings.Contains(err.Error(), "no mask") {
		t.Errorf("a link of an inbound with masks: %v", err)
	}
	if outbound, err := XrayOutbound(masked); err != nil || outbound["streamSettings"] == nil {
		t.Errorf("an outbound of Xray with masks: %v, %v", outbound, err)
	}
}
