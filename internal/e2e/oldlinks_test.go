package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// oldOutbound returns the outbound of a stock Xray that a link of another panel describes, on loopback
// and the port of the inbound. Only the host, the port of a CDN and what says that a certificate is good
// are not the link's.
func oldOutbound(t *testing.T, link string, port int, certificate string) map[string]any {
	t.Helper()
	scheme, rest, _ := strings.Cut(link, "://")
	if scheme == "vmess" {
		return oldVMess(t, rest, port)
	}
	u, err := url.Parse(link)
	must(t, err)
	q, user := u.Query(), u.User.Username()
	server := map[string]any{"address": "127.0.0.1", "port": port}
	outbound := map[string]any{"protocol": scheme, "settings": map[string]any{"servers": []any{server}}, "streamSettings": oldStream(q, certificate)}
	switch scheme {
	case "vless":
		server["users"] = []any{map[string]any{"id": user, "encryption": "none", "flow": q.Get("flow")}}
		outbound["settings"] = map[string]any{"vnext": []any{server}}
	case "socks": // the panels give no such link: the test makes one of the account
		password, _ := u.User.Password()
		server["users"] = []any{map[string]any{"user": user, "pass": password}}
	case "trojan":
		server["password"] = user
	case "ss":
		outbound["protocol"] = "shadowsocks"
		method, password := user, ""
		if secret, is := u.User.Password(); is {
			password = secret
		} else {
			raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(user, "="))
			must(t, err)
			method, password, _ = strings.Cut(string(raw), ":")
		}
		server["method"], server["password"] = method, password
	case "hysteria2":
		server["version"] = 2
		outbound["protocol"], outbound["settings"] = "hysteria", server
		stream := oldStream(q, certificate)
		stream["network"], stream["hysteriaSettings"] = "hysteria", map[string]any{"version": 2, "auth": user}
		outbound["streamSettings"] = stream
	case "wireguard":
		return map[string]any{"protocol": "wireguard", "settings": map[string]any{
			"secretKey": user, "address": []string{q.Get("address")}, "mtu": 1420, "noKernelTun": true,
			"peers": []any{map[string]any{"endpoint": net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "publicKey": q.Get("publickey")}},
		}}
	default:
		t.Fatalf("links of %s are not known", scheme)
	}
	return outbound
}

func oldVMess(t *testing.T, text string, port int) map[string]any {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(text)
	must(t, err)
	var link struct{ ID, Net, Path, Host string }
	must(t, json.Unmarshal(raw, &link))
	return map[string]any{
		"protocol": "vmess",
		"settings": map[string]any{"vnext": []any{map[string]any{"address": "127.0.0.1", "port": port, "users": []any{map[string]any{"id": link.ID, "security": "auto"}}}}},
		"streamSettings": map[string]any{
			"network": link.Net, "wsSettings": map[string]any{"path": link.Path, "host": link.Host},
		},
	}
}

// oldStream has TLS only where a node has it: a CDN ends it before the inbound.
func oldStream(q url.Values, certificate string) map[string]any {
	stream := map[string]any{"network": q.Get("type"), "security": "none"}
	switch q.Get("type") {
	case "ws":
		stream["wsSettings"] = map[string]any{"path": q.Get("path"), "host": q.Get("host")}
		return stream
	case "xhttp":
		stream["xhttpSettings"] = map[string]any{"path": q.Get("path"), "mode": q.Get("mode"), "extra": json.RawMessage(q.Get("extra"))}
	case "":
		stream["network"] = "tcp"
	}
	switch stream["security"] = q.Get("security"); q.Get("security") {
	case "":
		stream["security"] = "none"
	case "reality":
		stream["realitySettings"] = map[string]any{"serverName": q.Get("sni"), "publicKey": q.Get("pbk"), "shortId": q.Get("sid"), "fingerprint": q.Get("fp"), "spiderX": q.Get("spx")}
	case "tls":
		stream["tlsSettings"] = map[string]any{"serverName": q.Get("sni"), "pinnedPeerCertSha256": certificate}
		if q.Get("alpn") != "" {
			stream["tlsSettings"].(map[string]any)["alpn"] = strings.Split(q.Get("alpn"), ",")
		}
	}
	return stream
}

// oldPort is the port of a link, and the one of the inbound where the link is a CDN's.
func oldPort(t *testing.T, user, link string) int {
	t.Helper()
	if behind := map[string]int{"user4": 30080, "user6": 30082}[user]; behind != 0 {
		return behind
	}
	if text, is := strings.CutPrefix(link, "vmess://"); is {
		raw, err := base64.StdEncoding.DecodeString(text)
		must(t, err)
		var fields struct{ Port int }
		must(t, json.Unmarshal(raw, &fields))
		return fields.Port
	}
	u, err := url.Parse(link)
	must(t, err)
	port, err := strconv.Atoi(u.Port())
	must(t, err)
	return port
}

func (t Traffic) String() string { return fmt.Sprintf("%d up and %d down", t.Up, t.Down) }
