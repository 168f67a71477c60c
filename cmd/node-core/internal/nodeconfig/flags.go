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
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
)

// InboundFlags is an inbound as flags describe it.
type InboundFlags struct {
	Protocol string // vless, mtproto
	Listen   string // IP address
	Port     int
	Security string // none, tls, reality
	SNI      string // the name that clients ask for
	CertFile string // on the node; with tls
	KeyFile  string
	Dest     string // host:port of the site that REALITY borrows
	Flow     string // xtls-rprx-vision; none or empty for none

	// Of mtproto alone.
	TLSDomains []string // names that its TLS mode pretends to be
	Secure     bool     // offer the dd mode
	Classic    bool     // offer the mode without disguise
	Mask       string   // host:port of the site that strangers are shown
	AdTag      string   // 32 hex digits of @MTProxybot
	PublicHost string   // what links name; empty for the node's own
}

const defaultSNI = "www.microsoft.com"

type vlessInbound struct {
	Listen         string         `json:"listen"`
	Port           int            `json:"port"`
	Protocol       string         `json:"protocol"`
	Settings       map[string]any `json:"settings"`
	StreamSettings map[string]any `json:"streamSettings"`
}

// vision is the only flow that there is.
const vision = "xtls-rprx-vision"

// allowOnly refuses flags that the inbound would ignore: one that is meant to be encrypted
// must not become one that is not.
func (f InboundFlags) allowOnly(what string, names ...string) error {
	for name, given := range map[string]bool{
		"security": f.Security != "", "sni": f.SNI != "", "cert": f.CertFile != "", "key": f.KeyFile != "", "dest": f.Dest != "", "flow": f.Flow != "",
		"tls-domain": len(f.TLSDomains) > 0, "secure": f.Secure, "classic": f.Classic, "mask": f.Mask != "", "ad-tag": f.AdTag != "", "public-host": f.PublicHost != "",
	} {
		if given && !slices.Contains(names, name) {
			return fmt.Errorf("--%s does nothing with %s; leave it out", name, what)
		}
	}
	return nil
}

// flow is the client's flow, which works over what looks like TLS alone.
func (f InboundFlags) flow(security string) (string, error) {
	switch {
	case f.Flow == "" || f.Flow == "none":
		return "", nil
	case f.Flow != vision:
		return "", fmt.Errorf("flow %q is unknown: want %s or none", f.Flow, vision)
	case security != "tls" && security != "reality":
		return "", fmt.Errorf("flow %s needs security tls or reality", vision)
	}
	return vision, nil
}

// FromFlags makes the row's Config and link hints.
func FromFlags(f InboundFlags, p *corestore.Protocol) error {
	if f.Protocol != "vless" && f.Protocol != mtproto {
		return fmt.Errorf("protocol %q has no flags here: give the native Xray inbound with --inbound FILE", f.Protocol)
	}
	if net.ParseIP(f.Listen) == nil {
		return fmt.Errorf("listen address %q is no IP address", f.Listen)
	}
	if f.Port < 1 || f.Port > 65535 {
		return fmt.Errorf("port %d is none: want 1 to 65535", f.Port)
	}
	if f.Protocol == mtproto {
		if err := f.allowOnly("mtproto", "tls-domain", "secure", "classic", "mask", "ad-tag", "public-host"); err != nil {
			return err
		}
		return mtprotoFromFlags(f, p)
	}
	flow, err := f.flow(f.Security)
	if err != nil {
		return err
	}
	object := vlessInbound{
		Listen: f.Listen, Port: f.Port, Protocol: f.Protocol,
		Settings:       map[string]any{"decryption": "none"},
		StreamSettings: map[string]any{"network": "raw", "security": f.Security},
	}
	p.Link = corestore.LinkHints{SNI: f.SNI, Flow: flow}
	switch f.Security {
	case "", "none":
		if err := f.allowOnly("security none", "security", "flow"); err != nil {
			return err
		}
		object.StreamSettings["security"] = "none"
	case "tls":
		if err := f.allowOnly("security tls", "security", "flow", "sni", "cert", "key"); err != nil {
			return err
		}
		if f.CertFile == "" || f.KeyFile == "" {
			return errors.New("tls needs --cert and --key, the paths of the certificate on the node")
		}
		object.StreamSettings["tlsSettings"] = map[string]any{
			"certificates": []any{map[string]any{"certificateFile": f.CertFile, "keyFile": f.KeyFile}},
		}
	case "reality":
		if err := f.allowOnly("security reality", "security", "flow", "sni", "dest"); err != nil {
			return err
		}
		settings, err := reality(f, p)
		if err != nil {
			return err
		}
		object.StreamSettings["realitySettings"] = settings
	default:
		return fmt.Errorf("security %q is unknown: want none, tls or reality", f.Security)
	}
	p.Config, err = json.Marshal(object)
	return err
}

func reality(f InboundFlags, p *corestore.Protocol) (map[string]any, error) {
	if p.Link.SNI == "" {
		p.Link.SNI = defaultSNI
	}
	dest := f.Dest
	if dest == "" {
		dest = net.JoinHostPort(p.Link.SNI, "443")
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make REALITY key: %w", err)
	}
	var shortID [8]byte
	_, _ = rand.Read(shortID[:]) // never fails
	return map[string]any{
		"dest":        dest,
		"serverNames": []string{p.Link.SNI},
		"privateKey":  base64.RawURLEncoding.EncodeToString(key.Bytes()),
		"shortIds":    []string{hex.EncodeToString(shortID[:])},
	}, nil
}
