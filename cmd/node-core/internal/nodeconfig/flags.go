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

// Wish is an inbound as flags describe it.
type Wish struct {
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

type inboundObject struct {
	Listen         string         `json:"listen"`
	Port           int            `json:"port"`
	Protocol       string         `json:"protocol"`
	Settings       map[string]any `json:"settings"`
	StreamSettings map[string]any `json:"streamSettings"`
}

// vision is the only flow that there is.
const vision = "xtls-rprx-vision"

// takes refuses flags that the inbound would ignore: one that is meant to be encrypted
// must not become one that is not.
func (w Wish) takes(what string, names ...string) error {
	for name, given := range map[string]bool{
		"security": w.Security != "", "sni": w.SNI != "", "cert": w.CertFile != "", "key": w.KeyFile != "", "dest": w.Dest != "", "flow": w.Flow != "",
		"tls-domain": len(w.TLSDomains) > 0, "secure": w.Secure, "classic": w.Classic, "mask": w.Mask != "", "ad-tag": w.AdTag != "", "public-host": w.PublicHost != "",
	} {
		if given && !slices.Contains(names, name) {
			return fmt.Errorf("--%s does nothing with %s; leave it out", name, what)
		}
	}
	return nil
}

// flow is the client's flow, which works over what looks like TLS alone.
func (w Wish) flow(security string) (string, error) {
	switch {
	case w.Flow == "" || w.Flow == "none":
		return "", nil
	case w.Flow != vision:
		return "", fmt.Errorf("flow %q is unknown: want %s or none", w.Flow, vision)
	case security != "tls" && security != "reality":
		return "", fmt.Errorf("flow %s needs security tls or reality", vision)
	}
	return vision, nil
}

// FromWish makes the row's Config and link hints.
func FromWish(w Wish, p *corestore.Protocol) error {
	if w.Protocol != "vless" && w.Protocol != mtproto {
		return fmt.Errorf("protocol %q has no flags here: give the native Xray inbound with --inbound FILE", w.Protocol)
	}
	if net.ParseIP(w.Listen) == nil {
		return fmt.Errorf("listen address %q is no IP address", w.Listen)
	}
	if w.Port < 1 || w.Port > 65535 {
		return fmt.Errorf("port %d is none: want 1 to 65535", w.Port)
	}
	if w.Protocol == mtproto {
		if err := w.takes("mtproto", "tls-domain", "secure", "classic", "mask", "ad-tag", "public-host"); err != nil {
			return err
		}
		return mtprotoFromWish(w, p)
	}
	flow, err := w.flow(w.Security)
	if err != nil {
		return err
	}
	object := inboundObject{
		Listen: w.Listen, Port: w.Port, Protocol: w.Protocol,
		Settings:       map[string]any{"decryption": "none"},
		StreamSettings: map[string]any{"network": "raw", "security": w.Security},
	}
	p.Link = corestore.LinkHints{SNI: w.SNI, Flow: flow}
	switch w.Security {
	case "", "none":
		if err := w.takes("security none", "security", "flow"); err != nil {
			return err
		}
		object.StreamSettings["security"] = "none"
	case "tls":
		if err := w.takes("security tls", "security", "flow", "sni", "cert", "key"); err != nil {
			return err
		}
		if w.CertFile == "" || w.KeyFile == "" {
			return errors.New("tls needs --cert and --key, the paths of the certificate on the node")
		}
		object.StreamSettings["tlsSettings"] = map[string]any{
			"certificates": []any{map[string]any{"certificateFile": w.CertFile, "keyFile": w.KeyFile}},
		}
	case "reality":
		if err := w.takes("security reality", "security", "flow", "sni", "dest"); err != nil {
			return err
		}
		settings, err := reality(w, p)
		if err != nil {
			return err
		}
		object.StreamSettings["realitySettings"] = settings
	default:
		return fmt.Errorf("security %q is unknown: want none, tls or reality", w.Security)
	}
	p.Config, err = json.Marshal(object)
	return err
}

func reality(w Wish, p *corestore.Protocol) (map[string]any, error) {
	if p.Link.SNI == "" {
		p.Link.SNI = defaultSNI
	}
	dest := w.Dest
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
