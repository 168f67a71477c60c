package share

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Link returns the endpoint as a link, in the form that clients of its protocol agree on: XTLS's
// proposal for VLESS and Trojan (XTLS/Xray-core discussion 716), v2rayN's JSON for VMess (version
// 2), SIP002 for Shadowsocks, Hysteria 2's own URI scheme, and v2rayN's form for SOCKS and WireGuard. Masks
// of Xray's finalmask stand in the parameter "fm", as v2rayN and 3x-ui write them.
func Link(e Endpoint) (string, error) {
	switch e.Protocol {
	case "vless":
		return e.withQuery("vless", url.QueryEscape(e.Account.ID), append([]parameter{{"encryption", e.Account.Encryption}, {"flow", e.Account.Flow}}, e.streamQuery()...)), nil
	case "trojan":
		return e.withQuery("trojan", escape(e.Account.Password), e.streamQuery()), nil
	case "vmess":
		return e.vmessLink()
	case "shadowsocks":
		return e.shadowsocksLink()
	case "hysteria":
		return e.hysteriaLink()
	case "socks", "http":
		return e.proxyLink()
	case "wireguard":
		return e.wireGuardLink()
	}
	return "", unavailable("links of %s are not agreed on", e.Protocol)
}

// parameter is one of a link's query. An empty one is left out.
type parameter struct{ name, value string }

// withQuery returns a link whose user part is escaped already.
func (e Endpoint) withQuery(scheme, user string, query []parameter) string {
	var b strings.Builder
	b.WriteString(scheme + "://" + user + "@" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port)))
	query = slices.DeleteFunc(query, func(p parameter) bool { return p.value == "" })
	slices.SortStableFunc(query, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	for i, p := range query {
		if i == 0 {
			b.WriteByte('?')
		} else {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + escape(p.value))
	}
	b.WriteString("#" + escape(e.Name))
	return b.String()
}

// escape escapes a text for every part of a link, as encodeURIComponent of JavaScript does. Many
// clients take a plus sign for a plus sign.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

func (e Endpoint) streamQuery() []parameter {
	s := e.Stream
	query := []parameter{
		{"type", s.Network},
		{"security", s.Security},
		{"sni", s.ServerName},
		{"fp", s.Fingerprint},
		{"alpn", strings.Join(s.ALPN, ",")},
		{"pbk", s.PublicKey},
		{"sid", s.ShortID},
		{"path", s.Path},
		{"host", s.Host},
		{"extra", string(s.Extra)},
		{"fm", compact(s.Masks)},
		{"serviceName", s.Service},
		{"authority", s.Authority},
	}
	switch {
	case s.Network == "grpc" && s.Multi:
		query = append(query, parameter{"mode", "multi"})
	case s.Network == "xhttp":
		query = append(query, parameter{"mode", s.Mode})
	case s.HTTPHeader:
		query = append(query, parameter{"headerType", "http"})
	}
	return query
}

// compact returns a JSON text without spaces between its tokens.
func compact(raw json.RawMessage) string {
	if !isSet(raw) {
		return ""
	}
	short, err := json.Marshal(raw) // which compacts it
	if err != nil {
		return ""
	}
	return string(short)
}

// vmessLink has texts for all values but the port, as v2rayN writes them.
func (e Endpoint) vmessLink() (string, error) {
	s := e.Stream
	fields := map[string]any{
		"v": "2", "ps": e.Name, "add": e.Host, "port": e.Port, "id": e.Account.ID, "aid": "0", "scy": "auto",
		"net": s.Network, "type": "none", "host": s.Host, "path": s.Path, "tls": "", "sni": s.ServerName, "alpn": strings.Join(s.ALPN, ","), "fp": s.Fingerprint,
	}
	switch s.Network {
	case "grpc":
		fields["path"], fields["authority"] = s.Service, s.Authority
		if fields["type"] = "gun"; s.Multi {
			fields["type"] = "multi"
		}
	case "xhttp":
		fields["type"] = s.Mode
		if s.Mode == "" {
			fields["type"] = "auto"
		}
		fields["extra"] = string(s.Extra)
	case "tcp":
		if s.HTTPHeader {
			fields["type"] = "http"
		}
	}
	if s.Security != "none" {
		fields["tls"] = s.Security
	}
	if s.Security == "reality" {
		fields["pbk"], fields["sid"] = s.PublicKey, s.ShortID
	}
	if isSet(s.Masks) {
		fields["fm"] = compact(s.Masks)
	}
	raw, err := json.Marshal(fields)
	return "vmess://" + base64.StdEncoding.EncodeToString(raw), err
}

// shadowsocksLink has the user part in base64url for the AEAD methods, and escaped for those of
// 2022, as SIP002 wants it.
func (e Endpoint) shadowsocksLink() (string, error) {
	if err := e.isPlain(); err != nil {
		return "", err
	}
	method, password := e.Account.Method, e.Account.Password
	if strings.HasPrefix(method, "2022-") {
		return e.withQuery("ss", escape(method)+":"+escape(password), nil), nil
	}
	return e.withQuery("ss", base64.RawURLEncoding.EncodeToString([]byte(method+":"+password)), nil), nil
}

func (e Endpoint) hysteriaLink() (string, error) {
	obfs, others, err := e.salamander()
	if err != nil {
		return "", err
	}
	query := []parameter{{"sni", e.Stream.ServerName}, {"alpn", "h3"}}
	if obfs != "" {
		query = append(query, parameter{"obfs", "salamander"}, parameter{"obfs-password", obfs})
	}
	if others {
		query = append(query, parameter{"fm", compact(e.Stream.Masks)})
	}
	return e.withQuery("hysteria2", escape(e.Account.Password), query), nil
}

// salamander returns the password of Hysteria's own mask, empty without one, and whether the
// inbound has further masks, which only Xray knows.
func (e Endpoint) salamander() (password string, others bool, err error) {
	var masks map[string]json.RawMessage
	if err := unmarshal(e.Stream.Masks, &masks); err != nil {
		return "", false, unavailable("the finalmask of the inbound is no object: %v", err)
	}
	var udp []struct {
		Type     string                     `json:"type"`
		Settings map[string]json.RawMessage `json:"settings"`
	}
	if err := unmarshal(masks["udp"], &udp); err != nil {
		return "", false, unavailable("the UDP masks of the inbound are no list: %v", err)
	}
	if len(udp) == 0 {
		return "", false, nil // quicParams say how each side sends: a client has its own
	}
	only := len(udp) == 1 && udp[0].Type == "salamander" && len(udp[0].Settings) == 1
	if !only {
		return "", true, nil
	}
	return text(udp[0].Settings["password"]), false, nil
}

// proxyLink has user and password in base64 for SOCKS, and as they are for HTTP.
func (e Endpoint) proxyLink() (string, error) {
	if isSet(e.Stream.Masks) || e.Stream.Network != "tcp" || e.Stream.Security == "reality" {
		return "", unavailable("a link of %s says no transport, REALITY or mask", e.Protocol)
	}
	if e.Protocol == "http" {
		scheme := "http"
		if e.Stream.Security == "tls" {
			scheme = "https"
		}
		return e.withQuery(scheme, escape(e.Account.ID)+":"+escape(e.Account.Password), nil), nil
	}
	if e.Stream.Security != "none" {
		return "", unavailable("a link of SOCKS does not say that it goes over TLS")
	}
	return e.withQuery("socks", base64.RawURLEncoding.EncodeToString([]byte(e.Account.ID+":"+e.Account.Password)), nil), nil
}

// isPlain returns an error where the inbound has a transport, a security or a mask.
func (e Endpoint) isPlain() error {
	if e.Stream.Network != "tcp" || e.Stream.HTTPHeader || e.Stream.Security != "none" || isSet(e.Stream.Masks) {
		return unavailable("a link of %s says no transport, TLS or mask", e.Protocol)
	}
	return nil
}
