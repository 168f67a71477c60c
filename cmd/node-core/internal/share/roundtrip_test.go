package share

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// readLink reads a link as a client does, by the sources that Link names. It returns what a link can
// say of an endpoint.
func readLink(link string) (e Endpoint, err error) {
	if rest, is := strings.CutPrefix(link, "vmess://"); is {
		return readVMess(rest)
	}
	u, err := url.Parse(link)
	if err != nil {
		return e, err
	}
	// A plus sign is one, and no space.
	query, err := url.ParseQuery(strings.ReplaceAll(u.RawQuery, "+", "%2B"))
	if err != nil {
		return e, err
	}
	e.Name, e.Host = u.Fragment, u.Hostname()
	if e.Port, err = strconv.Atoi(u.Port()); err != nil {
		return e, err
	}
	first, second := u.User.Username(), ""
	if password, has := u.User.Password(); has {
		second = password
	}
	pair := func() error {
		if second != "" {
			return nil
		}
		raw, err := base64.RawURLEncoding.DecodeString(first)
		first, second, _ = strings.Cut(string(raw), ":")
		return err
	}
	e.Stream = Stream{Network: "tcp", Security: "none"}
	switch u.Scheme {
	case "vless":
		e.Protocol, e.Account = "vless", Account{ID: first, Flow: query.Get("flow"), Encryption: query.Get("encryption")}
		e.Stream = readStreamQuery(query)
	case "trojan":
		e.Protocol, e.Account.Password = "trojan", first
		e.Stream = readStreamQuery(query)
	case "ss":
		err = pair()
		e.Protocol, e.Account = "shadowsocks", Account{Method: first, Password: second}
	case "hysteria2":
		e.Protocol, e.Account.Password = "hysteria", first
		e.Stream = Stream{Network: "hysteria", Security: "tls", ServerName: query.Get("sni"), Masks: rawOrNil(query.Get("fm"))}
		if password := query.Get("obfs-password"); query.Get("obfs") == "salamander" {
			e.Stream.Masks, _ = json.Marshal(map[string]any{"udp": []any{map[string]any{"type": "salamander", "settings": map[string]any{"password": password}}}})
		}
	case "socks":
		err = pair()
		e.Protocol, e.Account = "socks", Account{ID: first, Password: second}
	case "http", "https":
		e.Protocol, e.Account = "http", Account{ID: first, Password: second}
		if u.Scheme == "https" {
			e.Stream.Security = "tls"
		}
	case "wireguard":
		e.Protocol, e.Stream = "wireguard", Stream{Security: "none"}
		e.Account.WireGuard, err = readWireGuardQuery(first, query)
	default:
		return e, fmt.Errorf("scheme %s", u.Scheme)
	}
	return e, err
}

func readWireGuardQuery(key string, query url.Values) (w *WireGuard, err error) {
	w = &WireGuard{PrivateKey: key, ServerKey: query.Get("publickey"), PreSharedKey: query.Get("presharedkey"), Addresses: strings.Split(query.Get("address"), ",")}
	for name, to := range map[string]*int64{"keepalive": &w.KeepAlive, "mtu": new(int64)} {
		if text := query.Get(name); text != "" {
			if *to, err = strconv.ParseInt(text, 10, 32); err != nil {
				return nil, err
			}
			if name == "mtu" {
				w.MTU = int(*to)
			}
		}
	}
	if text := query.Get("reserved"); text != "" {
		for number := range strings.SplitSeq(text, ",") {
			b, err := strconv.ParseUint(number, 10, 8)
			if err != nil {
				return nil, err
			}
			w.Reserved = append(w.Reserved, byte(b))
		}
	}
	return w, nil
}

func readStreamQuery(query url.Values) Stream {
	s := Stream{
		Network: query.Get("type"), Security: query.Get("security"), ServerName: query.Get("sni"), Fingerprint: query.Get("fp"), PublicKey: query.Get("pbk"),
		ShortID: query.Get("sid"), Path: query.Get("path"), Host: query.Get("host"), Extra: rawOrNil(query.Get("extra")), Masks: rawOrNil(query.Get("fm")),
		Service: query.Get("serviceName"), Authority: query.Get("authority"), HTTPHeader: query.Get("headerType") == "http",
	}
	if alpn := query.Get("alpn"); alpn != "" {
		s.ALPN = strings.Split(alpn, ",")
	}
	switch s.Network {
	case "grpc":
		s.Multi = query.Get("mode") == "multi"
	case "xhttp":
		s.Mode = query.Get("mode")
	}
	return s
}

func readVMess(text string) (e Endpoint, err error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return e, err
	}
	var v struct {
		PS, Add, ID, Net, Type, Host, Path, Authority, Extra, TLS, SNI, ALPN, FP, PBK, SID, FM string
		Port                                                                                   int
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return e, err
	}
	e = Endpoint{Name: v.PS, Protocol: "vmess", Host: v.Add, Port: v.Port, Account: Account{ID: v.ID}, Stream: Stream{
		Network: v.Net, Security: v.TLS, ServerName: v.SNI, Fingerprint: v.FP, PublicKey: v.PBK, ShortID: v.SID, Host: v.Host, Path: v.Path, Extra: rawOrNil(v.Extra), Masks: rawOrNil(v.FM),
	}}
	if v.TLS == "" {
		e.Stream.Security = "none"
	}
	if v.ALPN != "" {
		e.Stream.ALPN = strings.Split(v.ALPN, ",")
	}
	switch v.Net {
	case "grpc":
		e.Stream.Path, e.Stream.Service, e.Stream.Authority, e.Stream.Multi = "", v.Path, v.Authority, v.Type == "multi"
	case "xhttp":
		if v.Type != "auto" {
			e.Stream.Mode = v.Type
		}
	case "tcp":
		e.Stream.HTTPHeader = v.Type == "http"
	}
	return e, nil
}

func rawOrNil(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// drawInbound is an inbound of any protocol, transport and security, with texts that have to be
// escaped.
func drawInbound(t *rapid.T) Endpoint {
	texts := rapid.StringN(1, 12, 40)
	protocol := rapid.SampledFrom([]string{"vless", "vmess", "trojan", "shadowsocks", "hysteria", "socks", "http", "wireguard"}).Draw(t, "protocol")
	stream := map[string]any{}
	switch protocol {
	case "vless", "vmess", "trojan":
		network := rapid.SampledFrom([]string{"raw", "ws", "httpupgrade", "grpc", "xhttp", "kcp"}).Draw(t, "network")
		stream["network"] = network
		path, host := "/"+texts.Draw(t, "path"), texts.Draw(t, "host")
		switch network {
		case "raw":
			if rapid.Bool().Draw(t, "header") {
				stream["rawSettings"] = map[string]any{"header": map[string]any{"type": "http", "request": map[string]any{"path": []string{path}, "headers": map[string]any{"Host": []string{host}}}}}
			}
		case "ws":
			stream["wsSettings"] = map[string]any{"path": path, "headers": map[string]any{"Host": host}}
		case "httpupgrade":
			stream["httpupgradeSettings"] = map[string]any{"path": path, "host": host}
		case "grpc":
			stream["grpcSettings"] = map[string]any{"serviceName": path, "authority": host, "multiMode": rapid.Bool().Draw(t, "multi")}
		case "xhttp":
			stream["xhttpSettings"] = map[string]any{"path": path, "host": host, "mode": "packet-up", "extra": map[string]any{"seqKey": texts.Draw(t, "key")}}
		case "kcp":
			stream["finalmask"] = map[string]any{"udp": []any{map[string]any{"type": "mkcp-legacy", "settings": map[string]any{"value": texts.Draw(t, "mask")}}}}
		}
		switch rapid.SampledFrom([]string{"none", "tls", "reality"}).Draw(t, "security") {
		case "tls":
			stream["security"], stream["tlsSettings"] = "tls", map[string]any{"serverName": "a.example", "alpn": []string{"h2", "http/1.1"}, "fingerprint": "firefox"}
		case "reality":
			stream["security"], stream["realitySettings"] = "reality", map[string]any{"privateKey": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "serverNames": []string{"b.example"}, "shortIds": []string{"0123"}}
		}
	case "hysteria":
		stream = map[string]any{"network": "hysteria", "security": "tls", "tlsSettings": map[string]any{"serverName": "a.example"}}
		if rapid.Bool().Draw(t, "obfs") {
			stream["finalmask"] = map[string]any{"udp": []any{map[string]any{"type": "salamander", "settings": map[string]any{"password": texts.Draw(t, "password of the mask")}}}}
		}
	case "http":
		if rapid.Bool().Draw(t, "over TLS") {
			stream["security"] = "tls"
		}
	}
	settings := map[string]any{}
	if protocol == "shadowsocks" {
		settings["method"], settings["password"] = rapid.SampledFrom([]string{"aes-256-gcm", "2022-blake3-aes-128-gcm"}).Draw(t, "method"), "AAAAAAAAAAAAAAAA++//AA=="
	}
	if protocol == "wireguard" {
		settings["secretKey"], settings["mtu"] = wireGuardServer, rapid.SampledFrom([]int{0, 1280, 1420}).Draw(t, "mtu")
		settings["reserved"] = rapid.SampledFrom([]string{"", "AQL/"}).Draw(t, "reserved")
	}
	raw, err := json.Marshal(map[string]any{"settings": settings, "streamSettings": stream})
	if err != nil {
		t.Fatal(err)
	}
	e, err := Read(Inbound{Protocol: protocol, Config: raw})
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	e.Name, e.Port = texts.Draw(t, "name"), rapid.IntRange(1, 65535).Draw(t, "port")
	e.Host = rapid.SampledFrom([]string{"h.example", "192.0.2.1", "2001:db8::1"}).Draw(t, "address")
	password := rapid.StringN(1, 20, 60).Filter(func(s string) bool { return !strings.Contains(s, ":") })
	switch protocol {
	case "wireguard":
		w := e.Account.WireGuard
		w.PrivateKey, w.PreSharedKey = wireGuardClient, rapid.SampledFrom([]string{"", wireGuardServer}).Draw(t, "shared key")
		w.Addresses = rapid.SampledFrom([][]string{{"10.0.0.2/32"}, {"10.0.0.2/32", "fd00::2/128"}}).Draw(t, "addresses")
		w.KeepAlive = rapid.SampledFrom([]int64{0, 25}).Draw(t, "keep alive")
	case "vless", "vmess":
		e.Account.ID = "00112233-4455-4677-8899-aabbccddeeff"
	case "socks", "http":
		e.Account.ID, e.Account.Password = password.Draw(t, "user"), password.Draw(t, "password")
	default:
		e.Account.Password += password.Draw(t, "password")
	}
	return e
}

// A client that reads a link knows everything of the inbound that its link can say, and what it makes
// of that is written as the same link again. The outbound of Xray's form says the same as the link.
func TestLinksThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := drawInbound(t)
		link, err := Link(e)
		if err != nil {
			t.Fatal(err)
		}
		read, err := readLink(link)
		if err != nil {
			t.Fatalf("%s: %v", link, err)
		}
		if read.Name != e.Name || read.Host != e.Host || read.Port != e.Port || read.Account.ID != e.Account.ID || read.Account.Password != e.Account.Password {
			t.Fatalf("%s: read %+v, want %+v", link, read, e)
		}
		again, err := Link(read)
		if err != nil || again != link {
			t.Fatalf("%v: written again\n%s, want\n%s", err, again, link)
		}
		outbound, err := XrayOutbound(e)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(outbound)
		if err != nil {
			t.Fatal(err)
		}
		back, err := readOutbound(raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		if again, err := Link(back); err != nil || again != link {
			t.Fatalf("%v: of the outbound\n%s\nthe link is\n%s, want\n%s", err, raw, again, link)
		}
	})
}

// readOutbound reads an outbound of Xray. The streamSettings of a client are those of a server but
// for REALITY, so that the reader of inbounds reads them.
func readOutbound(raw []byte) (e Endpoint, err error) {
	type server struct {
		Address, Method, Password string
		Port                      int
		Users                     []struct{ ID, Encryption, Flow, User, Pass string }
	}
	var o struct {
		Tag, Protocol string
		Settings      struct {
			server
			VNext, Servers []server
		}
		StreamSettings struct {
			HysteriaSettings struct{ Auth string }
			RealitySettings  struct{ ServerName, Fingerprint, PublicKey, ShortID string }
		}
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return e, err
	}
	if text(object["protocol"]) == "wireguard" {
		return readWireGuardOutbound(raw)
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return e, err
	}
	s, err := readStream(withoutREALITY(object["streamSettings"]), Inbound{Protocol: o.Protocol})
	if err != nil {
		return e, err
	}
	if r := o.StreamSettings.RealitySettings; r.PublicKey != "" {
		s.Security, s.ServerName, s.Fingerprint, s.PublicKey, s.ShortID = "reality", r.ServerName, r.Fingerprint, r.PublicKey, r.ShortID
	}
	at := o.Settings.server
	for _, list := range [][]server{o.Settings.VNext, o.Settings.Servers} {
		if len(list) > 0 {
			at = list[0]
		}
	}
	e = Endpoint{Name: o.Tag, Protocol: o.Protocol, Host: at.Address, Port: at.Port, Stream: s, Account: Account{Password: at.Password + o.StreamSettings.HysteriaSettings.Auth, Method: at.Method}}
	if len(at.Users) > 0 {
		u := at.Users[0]
		e.Account.ID, e.Account.Flow, e.Account.Encryption = u.ID+u.User, u.Flow, u.Encryption
		e.Account.Password += u.Pass
	}
	return e, nil
}

func readWireGuardOutbound(raw []byte) (e Endpoint, err error) {
	var o struct {
		Tag      string
		Settings struct {
			SecretKey string
			Address   []string
			MTU       int
			Reserved  []byte
			Peers     []struct {
				PublicKey, PreSharedKey, Endpoint string
				KeepAlive                         int64
			}
		}
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return e, err
	}
	s, peer := o.Settings, o.Settings.Peers[0]
	host, port, err := net.SplitHostPort(peer.Endpoint)
	if err != nil {
		return e, err
	}
	e = Endpoint{Name: o.Tag, Protocol: "wireguard", Host: host, Stream: Stream{Security: "none"}, Account: Account{WireGuard: &WireGuard{
		ServerKey: peer.PublicKey, PrivateKey: s.SecretKey, PreSharedKey: peer.PreSharedKey, Addresses: s.Address, KeepAlive: peer.KeepAlive, MTU: s.MTU, Reserved: s.Reserved,
	}}}
	e.Port, err = strconv.Atoi(port)
	return e, err
}

// withoutREALITY returns streamSettings with the security none in the place of REALITY.
func withoutREALITY(raw json.RawMessage) json.RawMessage {
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil || object["security"] != "reality" {
		return raw
	}
	delete(object, "realitySettings")
	object["security"] = "none"
	without, _ := json.Marshal(object) // it was JSON
	return without
}

// Whatever a link is, reading it ends without a panic; what can be read and written is the same when
// it is read again.
func FuzzLinks(f *testing.F) {
	for _, link := range []string{
		"vless://u@h.example:443?encryption=none&security=tls&type=ws&path=%2Fa%20b#n", "trojan://p%40@[2001:db8::1]:1#%23", "ss://YWVzLTI1Ni1nY206cA@h.example:1#n",
		"ss://2022-blake3-aes-128-gcm:AA%3D%3D%3AAA@h.example:1#n", "hysteria2://p@h.example:1?obfs=salamander&obfs-password=x&sni=a#n", "socks://dTpw@h.example:1#n", "https://u:p@h.example:1#n",
		"wireguard://SPhYBYnHoEMAMq0Kqd3TNyWxS7yZaBqpVSeDrUiDZk0%3D@h.example:1?address=10.0.0.2%2F32&mtu=1420&publickey=p&reserved=1,2,3&keepalive=25#n",
		"vmess://" + base64.StdEncoding.EncodeToString([]byte(`{"ps":"n","add":"h.example","port":1,"id":"u","net":"grpc","type":"multi","path":"s"}`)),
	} {
		f.Add(link)
	}
	f.Fuzz(func(t *testing.T, link string) {
		e, err := readLink(link)
		if err != nil {
			return
		}
		written, err := Link(e)
		if err != nil {
			return
		}
		again, err := readLink(written)
		if err != nil {
			return // the reader is laxer than the writer, as with hosts that are none
		}
		if twice, err := Link(again); err != nil || twice != written {
			t.Errorf("%q: written %q, %v, want %q", link, twice, err, written)
		}
	})
}
