package parse_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"nodeagent/xray/xraytest"
)

// A configuration with the newer names is read into the same state as one with the older
// names.
func TestNewerNames(t *testing.T) {
	const id = `[{"id":"` + xraytest.UUIDA + `","email":"a"}]`
	inbound := func(protocol, settings, stream string) string {
		return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{%s},"streamSettings":{%s}}]}`, protocol, settings, stream)
	}
	for _, c := range []struct{ name, newer, older, says string }{
		{"users of vless", inbound("vless", `"users":`+id, ""), inbound("vless", `"clients":`+id, ""), ""},
		{"users of vmess", inbound("vmess", `"users":`+id, ""), inbound("vmess", `"clients":`+id, ""), ""},
		{"users of trojan", inbound("trojan", `"users":[{"password":"p"}]`, ""), inbound("trojan", `"clients":[{"password":"p"}]`, ""), ""},
		{"users of shadowsocks", inbound("shadowsocks", `"users":[]`, ""), inbound("shadowsocks", `"clients":[]`, ""), ""},
		{"users of hysteria", inbound("hysteria", `"users":[{"auth":"p"}]`, ""), inbound("hysteria", `"clients":[{"auth":"p"}]`, ""), ""},
		{"users of socks", inbound("socks", `"users":[{"user":"u","pass":"p"}]`, ""), inbound("socks", `"accounts":[{"user":"u","pass":"p"}]`, ""), ""},
		{"users of http", inbound("http", `"users":[{"user":"u","pass":"p"}]`, ""), inbound("http", `"accounts":[{"user":"u","pass":"p"}]`, ""), ""},
		{"users beside null", inbound("vless", `"clients":null,"users":`+id, ""), inbound("vless", `"clients":`+id, ""), ""},
		{"null beside clients", inbound("vless", `"users":null,"clients":`+id, ""), inbound("vless", `"clients":`+id, ""), ""},
		{"both with one value", inbound("vless", `"users":`+id+`,"clients":`+id, ""), inbound("vless", `"clients":`+id, ""), ""},
		{"both", inbound("vless", `"users":`+id+`,"clients":[]`, ""), "", `"users" and "clients" are two names of one member`},
		{"allowedNetwork", inbound("tunnel", `"allowedNetwork":"udp"`, ""), inbound("tunnel", `"network":"udp"`, ""), ""},
		{"a transport's method", inbound("vless", `"clients":[]`, `"method":"kcp"`), inbound("vless", `"clients":[]`, `"network":"kcp"`), ""},
		{"in capitals", inbound("vless", `"clients":[]`, `"Method":"kcp"`), inbound("vless", `"clients":[]`, `"network":"kcp"`), ""},
		{"two transports", inbound("vless", `"clients":[]`, `"method":"kcp","network":"ws"`), "", `"method" and "network" are two names`},
		{"an outbound's", `{"outbounds":[{"tag":"o","protocol":"vless","streamSettings":{"method":"ws"}}]}`, `{"outbounds":[{"tag":"o","protocol":"vless","streamSettings":{"network":"ws"}}]}`, ""},
		{"the method of a cipher", inbound("shadowsocks", `"method":"aes-256-gcm","clients":[]`, ""), inbound("shadowsocks", `"clients":[],"method":"aes-256-gcm"`, ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			newer, err := xraytest.Parse(c.newer)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want an error with %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			older, err := xraytest.Parse(c.older)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(newer, older) {
				t.Errorf("the newer name is read as\n%+v\nand the older one as\n%+v", newer, older)
			}
		})
	}
}
