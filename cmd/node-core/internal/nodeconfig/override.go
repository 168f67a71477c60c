package nodeconfig

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
	"nodeagent/xray/state"
)

// Override returns the inbound with what o sets. What would have no effect on the inbound is
// an error.
func Override(p corestore.Protocol, o coreapi.Overrides) (corestore.Protocol, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(p.Config, &object); err != nil {
		return p, fmt.Errorf("read the inbound: %w", err)
	}
	if o.Listen != "" {
		if p.Protocol != mtproto && (strings.HasPrefix(o.Listen, "/") || strings.HasPrefix(o.Listen, "@")) {
			return p, fmt.Errorf("listen address %q is a socket's: give another inbound with --inbound FILE", o.Listen)
		}
		if net.ParseIP(o.Listen) == nil {
			return p, fmt.Errorf("listen address %q is not an IP address", o.Listen)
		}
		p.Listen = o.Listen
	}
	if o.Port != 0 {
		if o.Port < 1 || o.Port > 65535 {
			return p, fmt.Errorf("port %d is out of range: want 1 to 65535", o.Port)
		}
		p.Port = o.Port
	}
	if err := errors.Join(set(object, "listen", p.Listen), set(object, "port", p.Port)); err != nil {
		return p, err
	}
	if err := overrideLinks(&p, object, o); err != nil {
		return p, err
	}
	if o.SNI != "" || o.CertFile != "" || o.KeyFile != "" || o.Dest != "" {
		if err := overrideSecurity(&p, object, o); err != nil {
			return p, err
		}
	}
	var err error
	p.Config, err = json.Marshal(object)
	return p, err
}

// overrideLinks sets what links say: the host and the flow.
func overrideLinks(p *corestore.Protocol, object map[string]json.RawMessage, o coreapi.Overrides) error {
	if o.PublicHost != "" {
		if strings.ContainsAny(o.PublicHost, " /?#@\"<>\\") {
			return fmt.Errorf("public host %q is neither a host name nor an IP address", o.PublicHost)
		}
		if p.Protocol == mtproto {
			if err := set(object, "publicHost", o.PublicHost); err != nil {
				return err
			}
		} else {
			p.Link.PublicHost = o.PublicHost
		}
	}
	if o.Flow == "" {
		return nil
	}
	if p.Protocol != "vless" {
		return fmt.Errorf("a flow has no effect with %s", p.Protocol)
	}
	flow, err := flowOf(InboundFlags{Flow: o.Flow}, security(*p))
	p.Link.Flow = flow
	return err
}

// security is the security of an Xray inbound in lower case: none, tls, reality.
func security(p corestore.Protocol) string {
	name := strings.ToLower(state.Inbound{Config: p.Config}.View().Stream.Security)
	if name == "" {
		return "none"
	}
	return name
}

// overrideSecurity sets members of tlsSettings or realitySettings.
func overrideSecurity(p *corestore.Protocol, object map[string]json.RawMessage, o coreapi.Overrides) error {
	if p.Protocol == mtproto {
		return errors.New("server name, certificate and site have no effect with mtproto")
	}
	kind := security(*p)
	if kind != "tls" && kind != "reality" {
		return fmt.Errorf("the inbound has neither TLS nor REALITY, so that server name, certificate and site have no effect")
	}
	var stream, settings map[string]json.RawMessage
	if err := json.Unmarshal(object["streamSettings"], &stream); err != nil {
		return fmt.Errorf("read streamSettings: %w", err)
	}
	member := kind + "Settings"
	if raw, ok := stream[member]; ok {
		if err := json.Unmarshal(raw, &settings); err != nil {
			return fmt.Errorf("read %s: %w", member, err)
		}
	}
	if settings == nil {
		settings = map[string]json.RawMessage{}
	}
	var err error
	if kind == "tls" {
		err = overrideTLS(p, settings, o)
	} else {
		err = overrideREALITY(p, settings, o)
	}
	if err != nil {
		return err
	}
	return errors.Join(set(stream, member, settings), set(object, "streamSettings", stream))
}

func overrideTLS(p *corestore.Protocol, settings map[string]json.RawMessage, o coreapi.Overrides) error {
	if o.Dest != "" {
		return errors.New("only REALITY borrows a site, and the inbound has TLS")
	}
	if o.SNI != "" {
		p.Link.SNI = o.SNI
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return errors.New("give the paths of both, the certificate and its key")
	}
	if o.CertFile == "" {
		return nil
	}
	return set(settings, "certificates", []any{map[string]any{"certificateFile": o.CertFile, "keyFile": o.KeyFile}})
}

// overrideREALITY sets the borrowed site. Where the inbound borrowed port 443 of its server name, it
// borrows that of the new server name.
func overrideREALITY(p *corestore.Protocol, settings map[string]json.RawMessage, o coreapi.Overrides) error {
	if o.CertFile != "" || o.KeyFile != "" {
		return errors.New("REALITY has no certificate of its own")
	}
	if _, _, err := net.SplitHostPort(o.Dest); o.Dest != "" && err != nil {
		return fmt.Errorf("site %q is not HOST:PORT", o.Dest)
	}
	member, site := "dest", ""
	for _, name := range []string{"dest", "target"} { // Xray's two names of one member
		if raw, ok := settings[name]; ok && json.Unmarshal(raw, &site) == nil {
			member = name
		}
	}
	dest := o.Dest
	if o.SNI != "" {
		if dest == "" && site == net.JoinHostPort(p.Link.SNI, "443") {
			dest = net.JoinHostPort(o.SNI, "443")
		}
		p.Link.SNI = o.SNI
		if err := set(settings, "serverNames", []string{o.SNI}); err != nil {
			return err
		}
	}
	if dest == "" {
		return nil
	}
	return set(settings, member, dest)
}

// Rotate returns the inbound with other keys. Only REALITY has keys that are the inbound's: links that
// were given out before connect no more.
func Rotate(p corestore.Protocol) (corestore.Protocol, error) {
	if p.Protocol == mtproto || security(p) != "reality" {
		return p, fmt.Errorf("protocol %s has no keys of its own to rotate; 'node-core subscription rotate' gives clients other ones", p.Tag)
	}
	var object, stream, settings map[string]json.RawMessage
	if err := json.Unmarshal(p.Config, &object); err != nil {
		return p, fmt.Errorf("read the inbound: %w", err)
	}
	if err := json.Unmarshal(object["streamSettings"], &stream); err != nil {
		return p, fmt.Errorf("read streamSettings: %w", err)
	}
	if err := json.Unmarshal(stream["realitySettings"], &settings); err != nil {
		return p, fmt.Errorf("read realitySettings: %w", err)
	}
	key, shortID, err := realityKeys()
	if err != nil {
		return p, err
	}
	err = errors.Join(set(settings, "privateKey", key), set(settings, "shortIds", []string{shortID}),
		set(stream, "realitySettings", settings), set(object, "streamSettings", stream))
	if err != nil {
		return p, err
	}
	p.Config, err = json.Marshal(object)
	return p, err
}

// realityKeys makes a private key, in base64url, and a short id, in hex.
func realityKeys() (private, shortID string, err error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("create REALITY key: %w", err)
	}
	var short [8]byte
	_, _ = rand.Read(short[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(key.Bytes()), hex.EncodeToString(short[:]), nil
}

// Use returns the inbound of a node that a template gives with these overrides. The row has what is
// the inbound's alone: id, node, tag, note.
func Use(t corestore.Template, row corestore.Protocol, o coreapi.Overrides) (corestore.Protocol, error) {
	row.TemplateID, row.Overrides, row.Protocol = t.ID, o, t.Protocol
	row.Listen, row.Port, row.Config, row.Link = t.Listen, t.Port, t.Config, t.Link
	return Override(row, o)
}
