package share

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Inbound is what Core knows of an inbound.
type Inbound struct {
	Protocol   string          // in lower case
	Config     json.RawMessage // Xray's inbound object
	ServerName string          // that clients send; empty for the one that the inbound names
	Flow       string          // of VLESS
}

// networks maps Xray's names of transports, in lower case, to those of links.
var networks = map[string]string{
	"": "tcp", "raw": "tcp", "tcp": "tcp", "ws": "ws", "websocket": "ws", "httpupgrade": "httpupgrade",
	"grpc": "grpc", "xhttp": "xhttp", "splithttp": "xhttp", "kcp": "kcp", "mkcp": "kcp", "hysteria": "hysteria",
}

// settingsNames are the members of streamSettings that have a transport's object. Of two, the
// first one counts (xray-core, infra/conf/transport_internet.go, StreamConfig.Build).
var settingsNames = map[string][]string{
	"tcp": {"rawsettings", "tcpsettings"}, "ws": {"wssettings"}, "httpupgrade": {"httpupgradesettings"}, "grpc": {"grpcsettings"},
	"xhttp": {"xhttpsettings", "splithttpsettings"}, "kcp": {"kcpsettings"}, "hysteria": {"hysteriasettings"},
}

// serverOnly are the members of a transport's object that a client does not have, in lower case.
var serverOnly = []string{
	"acceptproxyprotocol", "nosseheader", "scmaxbufferedposts", "scstreamupserversecs", "servermaxheaderbytes", "masquerade", "auth",
}

// Read returns how a client reaches the inbound. The caller sets Name, Host and Port, and the
// secrets of Account. The error is an *Unavailable if no client could be told.
func Read(in Inbound) (Endpoint, error) {
	e := Endpoint{Protocol: in.Protocol}
	object, err := members(in.Config)
	if err != nil {
		return e, fmt.Errorf("read the inbound: %w", err)
	}
	settings, err := members(object["settings"])
	if err != nil {
		return e, fmt.Errorf("read the settings of the inbound: %w", err)
	}
	switch in.Protocol {
	case "vless":
		e.Account.Flow = in.Flow
		if e.Account.Encryption, err = clientEncryption(text(settings["decryption"])); err != nil {
			return e, err
		}
	case "shadowsocks":
		e.Account.Method = text(settings["method"])
		if strings.HasPrefix(e.Account.Method, "2022-") {
			e.Account.Password = text(settings["password"]) + ":"
		}
	case "mixed":
		e.Protocol = "socks"
	case "wireguard":
		e.Stream.Security = "none"
		e.Stream.Masks, err = masksOf(object["streamsettings"])
		if err != nil {
			return e, err
		}
		e.Account.WireGuard, err = readWireGuard(settings)
		return e, err
	case "vmess", "trojan", "hysteria", "socks", "http":
	default:
		return e, unavailable("Core makes no clients of %s, so that it knows no link of theirs", in.Protocol)
	}
	e.Stream, err = readStream(object["streamsettings"], in)
	return e, err
}

// masksOf returns the finalmask of streamSettings; nil for none.
func masksOf(raw json.RawMessage) (json.RawMessage, error) {
	object, err := members(raw)
	if err != nil {
		return nil, fmt.Errorf("read streamSettings: %w", err)
	}
	if !isSet(object["finalmask"]) {
		return nil, nil
	}
	return object["finalmask"], nil
}

func readStream(raw json.RawMessage, in Inbound) (Stream, error) {
	var s Stream
	object, err := members(raw)
	if err != nil {
		return s, fmt.Errorf("read streamSettings: %w", err)
	}
	name := text(object["method"]) // it wins (StreamConfig.Build)
	if name == "" {
		name = text(object["network"])
	}
	var known bool
	if s.Network, known = networks[strings.ToLower(name)]; !known {
		return s, unavailable("the transport %q has no name in links", name)
	}
	for _, name := range settingsNames[s.Network] {
		if isSet(object[name]) {
			if s.settings, err = clientSettings(object[name]); err != nil {
				return s, fmt.Errorf("read %s: %w", name, err)
			}
			break
		}
	}
	if err := s.readTransport(); err != nil {
		return s, fmt.Errorf("read the settings of the transport %s: %w", s.Network, err)
	}
	if isSet(object["finalmask"]) {
		s.Masks = object["finalmask"]
	}
	err = s.readSecurity(object, in)
	return s, err
}

// clientSettings returns a transport's object without what only servers have.
func clientSettings(raw json.RawMessage) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	maps.DeleteFunc(object, func(name string, _ json.RawMessage) bool { return slices.Contains(serverOnly, strings.ToLower(name)) })
	return object, nil
}

func (s *Stream) readTransport() error {
	raw, err := json.Marshal(s.settings)
	if err != nil {
		return err
	}
	var t struct {
		Path, Host, Mode, ServiceName, Authority string
		MultiMode                                bool
		Headers                                  map[string]string
		Extra                                    json.RawMessage
		Header                                   struct {
			Type    string
			Request struct {
				Path    texts
				Headers map[string]texts
			}
		}
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return err
	}
	switch s.Network {
	case "tcp":
		s.HTTPHeader = strings.EqualFold(t.Header.Type, "http")
		if s.HTTPHeader {
			s.Path = first(t.Header.Request.Path)
			for name, values := range t.Header.Request.Headers {
				if strings.EqualFold(name, "host") {
					s.Host = first(values)
				}
			}
		}
	case "grpc":
		s.Service, s.Authority, s.Multi = t.ServiceName, t.Authority, t.MultiMode
	case "ws", "httpupgrade", "xhttp":
		s.Path, s.Host, s.Headers = t.Path, t.Host, t.Headers
		for name, value := range s.Headers {
			if strings.EqualFold(name, "host") { // as in configurations of Xray before 1.8.14
				delete(s.Headers, name)
				if s.Host == "" {
					s.Host = value
				}
			}
		}
	}
	if s.Network == "xhttp" {
		s.Mode = t.Mode
		return s.readExtra(t.Extra)
	}
	return nil
}

// readExtra sets Extra to the members of XHTTP beside host, path and mode. The member "extra"
// stands for all of them where it is (xray-core, infra/conf/transport_method.go,
// SplitHTTPConfig.Build).
func (s *Stream) readExtra(extra json.RawMessage) error {
	more := maps.Clone(s.settings)
	if isSet(extra) {
		var err error
		if more, err = clientSettings(extra); err != nil {
			return err
		}
	}
	maps.DeleteFunc(more, func(name string, value json.RawMessage) bool {
		return slices.Contains([]string{"host", "path", "mode", "extra"}, strings.ToLower(name)) || !isSet(value) || string(value) == "{}"
	})
	if len(more) == 0 {
		return nil
	}
	var err error
	s.Extra, err = json.Marshal(more)
	return err
}

func (s *Stream) readSecurity(object map[string]json.RawMessage, in Inbound) error {
	s.Security, s.ServerName = strings.ToLower(text(object["security"])), in.ServerName
	switch s.Security {
	case "", "none":
		s.Security = "none"
		return nil
	case "tls":
		var t struct {
			ServerName, Fingerprint string
			ALPN                    texts
		}
		if err := unmarshal(object["tlssettings"], &t); err != nil {
			return fmt.Errorf("read tlsSettings: %w", err)
		}
		s.Fingerprint, s.ALPN = t.Fingerprint, s.clientALPN(in.Protocol, t.ALPN)
		if s.ServerName == "" {
			s.ServerName = t.ServerName
		}
		return nil
	case "reality":
		var r struct {
			PrivateKey, Fingerprint string
			ServerNames, ShortIDs   []string
		}
		if err := unmarshal(object["realitysettings"], &r); err != nil {
			return fmt.Errorf("read realitySettings: %w", err)
		}
		if s.ServerName == "" {
			s.ServerName = first(r.ServerNames)
		}
		s.ShortID, s.Fingerprint = first(r.ShortIDs), r.Fingerprint
		if s.Fingerprint == "" {
			s.Fingerprint = "chrome"
		}
		var err error
		s.PublicKey, err = publicKey(r.PrivateKey)
		return err
	}
	return unavailable("the security %q has no name in links", s.Security)
}

// clientALPN returns which of the inbound's protocols a client offers for this transport. A client
// that offered others could agree on one that the transport does not speak, or the inbound: that of HTTP
// has no HTTP/2, which Xray's client uses as soon as it is agreed on (proxy/http/client.go, setUpHTTPTunnel).
func (s *Stream) clientALPN(protocol string, of []string) []string {
	var fits []string
	network := s.Network
	if protocol == "http" {
		network = "http"
	}
	switch network {
	case "ws", "httpupgrade", "http":
		fits = []string{"http/1.1"}
	case "grpc":
		fits = []string{"h2"}
	case "hysteria":
		fits = []string{"h3"}
	case "xhttp":
		if slices.Equal(of, []string{"h3"}) {
			return of
		}
		fallthrough
	default: // HTTP/3 is not spoken over TCP
		return slices.DeleteFunc(slices.Clone(of), func(name string) bool { return name == "h3" })
	}
	return slices.DeleteFunc(slices.Clone(of), func(name string) bool { return !slices.Contains(fits, name) })
}

// publicKey returns the public key of REALITY's private key, both in base64url.
func publicKey(private string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(private)
	if err != nil {
		return "", errors.New("read privateKey of realitySettings: it is not base64url")
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return "", fmt.Errorf("read privateKey of realitySettings: it has %d bytes, want 32", len(raw))
	}
	return base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}
