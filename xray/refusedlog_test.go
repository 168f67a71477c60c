package xray_test

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/xraytest"
)

// scan connects to a port, sends garbage, and reads until the other side closes.
func scan(port, size int, secure *tls.Config) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	garbage := make([]byte, size)
	_, _ = rand.Read(garbage)
	_, _ = conn.Write(garbage)
	if half, is := conn.(interface{ CloseWrite() error }); is {
		_ = half.CloseWrite()
	}
	_, _ = conn.Read(garbage)
}

// Connections of scanners, with garbage and with wrong credentials, are counted by inbound and
// told together, and not one by one.
func TestRefusedConnectionsAreCounted(t *testing.T) {
	const each = 40
	r := newRig(t)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	secure := fmt.Sprintf(`"security":"tls","tlsSettings":{"certificates":[{"certificate":[%q],"key":[%q]}]}`, certificate, key)
	uuid := fmt.Sprintf(`{"id":%q,"email":%[1]q}`, aliceID)
	kinds := []struct{ name, protocol, settings, stream string }{
		{"vless", "vless", `"decryption":"none","clients":[` + uuid + `]`, ``},
		{"vless-tls", "vless", `"decryption":"none","clients":[` + uuid + `]`, secure},
		{"vmess", "vmess", `"clients":[` + uuid + `]`, ``},
		{"trojan", "trojan", `"clients":[{"password":"a","email":"a"}]`, secure},
		{"shadowsocks", "shadowsocks", `"method":"aes-256-gcm","clients":[{"password":"a","email":"a","method":"aes-256-gcm"}]`, ``},
		{"ss2022", "shadowsocks", `"method":"2022-blake3-aes-128-gcm","password":"AAAAAAAAAAAAAAAAAAAAAA==","clients":[{"password":"AAAAAAAAAAAAAAAAAAAAAA==","email":"a"}]`, ``},
		{"socks", "socks", `"auth":"password","accounts":[{"user":"a","pass":"b"}]`, ``},
		{"http", "http", `"accounts":[{"user":"a","pass":"b"}]`, ``},
		{"ws", "vless", `"decryption":"none","clients":[` + uuid + `]`, `"network":"ws","wsSettings":{"path":"/w"},` + secure},
		{"upgrade", "vless", `"decryption":"none","clients":[` + uuid + `]`, `"network":"httpupgrade","httpupgradeSettings":{"path":"/w"},` + secure},
		{"grpc", "vless", `"decryption":"none","clients":[` + uuid + `]`, `"network":"grpc","grpcSettings":{"serviceName":"s"},` + secure},
		{"xhttp", "vless", `"decryption":"none","clients":[` + uuid + `]`, `"network":"xhttp","xhttpSettings":{"path":"/x"},` + secure},
		{"hysteria", "hysteria", `"version":2,"clients":[{"auth":"right","email":"a"}]`, `"network":"hysteria","hysteriaSettings":{"version":2},` + secure},
	}
	var inbounds []string
	ports := map[string]int{}
	for i, k := range kinds {
		ports[k.name] = freePort(t)
		inbounds = append(inbounds, fmt.Sprintf(`{"tag":"%s-%d","listen":"127.0.0.1","port":%d,"protocol":%q,"settings":{%s},"streamSettings":{%s}}`, k.name, i+1, ports[k.name], k.protocol, k.settings, k.stream))
	}
	s, err := parseReaching(json.RawMessage(`{"inbounds":[`+strings.Join(inbounds, ",")+`]}`), func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	r.apply(s)
	want := map[string]int64{"hysteria": each}
	for _, k := range kinds {
		if k.protocol == "hysteria" {
			continue // it has no TCP port
		}
		secured := strings.Contains(k.stream, "tls")
		want[k.name] = each
		if secured {
			want[k.name] += each
		}
		for range each {
			scan(ports[k.name], 500, nil)
			if secured {
				scan(ports[k.name], 500, &tls.Config{InsecureSkipVerify: true})
			}
		}
	}
	for range each {
		if _, status := showHysteria(t, ports["hysteria"], "wrong"); status != http.StatusNotFound {
			t.Fatalf("a client of Hysteria with a wrong auth is answered with %d", status)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}, Timeout: patience}
	defer client.CloseIdleConnections()
	for _, name := range []string{"ws", "upgrade", "grpc", "xhttp"} {
		want[name] += each
		for range each {
			if answer, err := client.Post(fmt.Sprintf("https://127.0.0.1:%d/wrong/path", ports[name]), "application/grpc", nil); err == nil {
				_ = answer.Body.Close()
			}
		}
	}
	r.eventually("the refused connections are counted by inbound", func() bool {
		counts := r.engine.Status().RefusedConnections
		for i, k := range kinds {
			tag := fmt.Sprintf("%s-%d", k.name, i+1)
			if counts[tag] < want[k.name] {
				return false
			}
		}
		return counts[""] == 0
	})
	if lines := strings.Count(r.log.all(), "worker says"); lines > 20 {
		t.Errorf("%d lines tell of %d connections of strangers:\n%.3000s", lines, each*len(kinds), r.log.all())
	}
}
