package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

// tree is an object of a configuration.
type tree map[string]any

func (t tree) text(name string) string {
	switch value := t[name].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

func (t tree) in(name string) tree {
	inner, _ := t[name].(map[string]any)
	return inner
}

// list returns the texts of a list; one text is a list of one.
func (t tree) list(name string) (all []string) {
	switch value := t[name].(type) {
	case string:
		return []string{value}
	case []any:
		for _, item := range value {
			all = append(all, fmt.Sprint(item))
		}
	}
	return all
}

func (t tree) number(name string) int {
	n, _ := strconv.Atoi(t.text(name)) // 0 for what is missing
	return n
}

// early puts the bytes of early data back into a path, as earlyData took them out.
func early(path string, size int) string {
	if size == 0 {
		return path
	}
	u, _ := url.Parse(path) // it was one
	query := u.Query()
	query.Set("ed", strconv.Itoa(size))
	u.RawQuery = query.Encode()
	return u.String()
}

func salamanderMask(password string) json.RawMessage {
	raw, _ := json.Marshal(map[string]any{"udp": []any{map[string]any{"type": "salamander", "settings": map[string]any{"password": password}}}})
	return raw
}

// readMihomo reads a proxy as mihomo does, in the words of its documentation.
func readMihomo(p tree) Endpoint {
	e := Endpoint{Name: p.text("name"), Host: p.text("server"), Port: p.number("port"), Stream: Stream{Network: "tcp", Security: "none"}}
	a, s := &e.Account, &e.Stream
	switch e.Protocol = p.text("type"); e.Protocol {
	case "vless", "vmess":
		a.ID, a.Flow, a.Encryption = p.text("uuid"), p.text("flow"), p.text("encryption")
		if e.Protocol == "vless" && a.Encryption == "" {
			a.Encryption = "none"
		}
	case "trojan":
		a.Password, s.Security = p.text("password"), "tls"
	case "ss":
		e.Protocol, a.Method, a.Password = "shadowsocks", p.text("cipher"), p.text("password")
	case "hysteria2":
		e.Protocol, a.Password = "hysteria", p.text("password")
		*s = Stream{Network: "hysteria", Security: "tls", ServerName: p.text("sni")}
		if p.text("obfs") == "salamander" {
			s.Masks = salamanderMask(p.text("obfs-password"))
		}
		return e
	case "wireguard":
		w := &WireGuard{ServerKey: p.text("public-key"), PrivateKey: p.text("private-key"), PreSharedKey: p.text("pre-shared-key"), KeepAlive: int64(p.number("persistent-keepalive")), MTU: p.number("mtu")}
		for _, name := range []string{"ip", "ipv6"} {
			w.Addresses = append(w.Addresses, p.list(name)...)
		}
		for _, b := range p.list("reserved") {
			n, _ := strconv.Atoi(b)
			w.Reserved = append(w.Reserved, byte(n))
		}
		*s, a.WireGuard = Stream{Security: "none"}, w
		return e
	default: // socks5 and http
		a.ID, a.Password = p.text("username"), p.text("password")
		if e.Protocol == "socks5" {
			e.Protocol = "socks"
		}
	}
	if p["tls"] == true {
		s.Security = "tls"
	}
	s.ServerName, s.ALPN, s.Fingerprint = p.text("sni")+p.text("servername"), p.list("alpn"), p.text("client-fingerprint")
	if r := p.in("reality-opts"); r != nil {
		s.Security, s.PublicKey, s.ShortID = "reality", r.text("public-key"), r.text("short-id")
	}
	readMihomoTransport(p, s)
	return e
}

func readMihomoTransport(p tree, s *Stream) {
	switch p.text("network") {
	case "http":
		o := p.in("http-opts")
		s.HTTPHeader, s.Path, s.Host = true, first(o.list("path")), first(o.in("headers").list("Host"))
	case "ws":
		o := p.in("ws-opts")
		s.Network, s.Path, s.Host = "ws", early(o.text("path"), o.number("max-early-data")), o.in("headers").text("Host")
		if o["v2ray-http-upgrade"] == true {
			s.Network = "httpupgrade"
		}
	case "grpc":
		s.Network, s.Service = "grpc", p.in("grpc-opts").text("grpc-service-name")
	}
}

// readSingBox reads an outbound as sing-box does, in the words of its documentation.
func readSingBox(o tree) Endpoint {
	e := Endpoint{Name: o.text("tag"), Protocol: o.text("type"), Host: o.text("server"), Port: o.number("server_port"), Stream: Stream{Network: "tcp", Security: "none"}}
	a, s := &e.Account, &e.Stream
	a.Password = o.text("password")
	switch e.Protocol {
	case "vless", "vmess":
		a.ID, a.Flow = o.text("uuid"), o.text("flow")
		if e.Protocol == "vless" {
			a.Encryption = "none"
		}
	case "shadowsocks":
		a.Method = o.text("method")
	case "socks", "http":
		a.ID = o.text("username")
	case "hysteria2":
		e.Protocol = "hysteria"
		*s = Stream{Network: "hysteria", Security: "tls", ServerName: o.in("tls").text("server_name")}
		if obfs := o.in("obfs"); obfs.text("type") == "salamander" {
			s.Masks = salamanderMask(obfs.text("password"))
		}
		return e
	}
	if t := o.in("tls"); t["enabled"] == true {
		s.Security, s.ServerName, s.ALPN, s.Fingerprint = "tls", t.text("server_name"), t.list("alpn"), t.in("utls").text("fingerprint")
		if r := t.in("reality"); r["enabled"] == true {
			s.Security, s.PublicKey, s.ShortID = "reality", r.text("public_key"), r.text("short_id")
		}
	}
	if t := o.in("transport"); t != nil {
		s.Network, s.Service, s.Path = t.text("type"), t.text("service_name"), early(t.text("path"), t.number("max_early_data"))
		s.Host = t.text("host") + t.in("headers").text("Host")
	}
	return e
}

// sayable returns what of an endpoint a form of mihomo or sing-box has words for, with what the form
// says where the endpoint leaves it open.
func sayable(e Endpoint) Endpoint {
	s := &e.Stream
	s.settings = nil
	s.Authority = "" // no node looks at it
	if s.Network == "hysteria" {
		s.ALPN, s.Fingerprint = nil, "" // both have h3 alone and imitate no browser
		return e
	}
	if s.Security != "none" && s.Fingerprint == "" {
		s.Fingerprint = "chrome"
	}
	if len(s.ALPN) == 0 {
		s.ALPN = nil
	}
	if len(s.Headers) == 0 {
		s.Headers = nil
	}
	if w := e.Account.WireGuard; w != nil && len(w.Reserved) == 0 {
		w.Reserved = nil
	}
	return e
}

// The forms of mihomo and sing-box, read as their clients read them, are the endpoint of before: the link
// that is written of them is the link of the endpoint.
func TestOtherFormsThereAndBack(t *testing.T) {
	for _, form := range []struct {
		name  string
		write func(Endpoint) (map[string]any, error)
		// text writes and reads the form as the file has it.
		text func(map[string]any, *tree) error
		read func(tree) Endpoint
	}{
		{"mihomo", MihomoProxy, func(from map[string]any, to *tree) error {
			tree, err := YAML(from)
			if err != nil {
				return err
			}
			raw, err := yaml.Marshal(tree)
			if err != nil {
				return err
			}
			return yaml.Unmarshal(raw, (*map[string]any)(to))
		}, readMihomo},
		{"sing-box", SingBoxOutbound, func(from map[string]any, to *tree) error {
			raw, err := json.Marshal(from)
			if err != nil {
				return err
			}
			return json.Unmarshal(raw, to)
		}, readSingBox},
	} {
		t.Run(form.name, func(t *testing.T) {
			served := map[string]bool{}
			rapid.Check(t, func(t *rapid.T) {
				e := drawInbound(t)
				written, err := form.write(e)
				if _, is := errors.AsType[*Unavailable](err); is {
					return
				}
				var read tree
				if err := errors.Join(err, form.text(written, &read)); err != nil {
					t.Fatal(err)
				}
				served[e.Protocol+" "+e.Stream.Network] = true
				got, want := sayable(form.read(read)), sayable(e)
				first, err := Link(got)
				second, err2 := Link(want)
				if err != nil || err2 != nil || first != second {
					t.Fatalf("of\n%v\nthe link is\n%s, %v, want\n%s, %v", written, first, err, second, err2)
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("of\n%v\nwas read\n%+v, want\n%+v", written, got, want)
				}
			})
			if len(served) < 10 {
				t.Errorf("the form was tried with %d kinds of inbounds: %v", len(served), served)
			}
		})
	}
}
