package nodeconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// InboundFlags are the flags that describe an inbound.
type InboundFlags = coreapi.InboundFlags

const defaultSNI = "www.microsoft.com"

type vlessInbound struct {
	Listen         string         `json:"listen"`
	Port           int            `json:"port"`
	Protocol       string         `json:"protocol"`
	Settings       map[string]any `json:"settings"`
	StreamSettings map[string]any `json:"streamSettings"`
}

// vision is the only flow that Xray has.
const vision = "xtls-rprx-vision"

// allowOnly returns an error if a flag is set whose name is not in names. Flags that the inbound
// would ignore are refused: with --cert and without --security, for example, the operator
// expects TLS and would get none. what says in the error what the flag has no effect on.
func allowOnly(f InboundFlags, what string, names ...string) error {
	for name, given := range map[string]bool{
		"security": f.Security != "", "sni": f.SNI != "", "cert": f.CertFile != "", "key": f.KeyFile != "", "dest": f.Dest != "", "flow": f.Flow != "",
		"tls-domain": len(f.TLSDomains) > 0, "secure": f.Secure, "classic": f.Classic, "mask": f.Mask != "", "ad-tag": f.AdTag != "", "public-host": f.PublicHost != "",
	} {
		if given && !slices.Contains(names, name) {
			return fmt.Errorf("--%s has no effect with %s; leave it out", name, what)
		}
	}
	return nil
}

// flowOf returns the flow of the clients, empty for none. A flow needs TLS or REALITY; security is
// that of the inbound, in lower case.
func flowOf(f InboundFlags, security string) (string, error) {
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

// OverridesOf returns the flags as what an inbound has of its own beside its template. Any other
// flag is an error.
func OverridesOf(f InboundFlags) (coreapi.Overrides, error) {
	if f.Protocol != "" {
		return coreapi.Overrides{}, errors.New("--protocol has no effect with --template; leave it out")
	}
	if err := allowOnly(f, "--template", "sni", "cert", "key", "dest", "flow", "public-host"); err != nil {
		return coreapi.Overrides{}, err
	}
	return coreapi.Overrides{
		Listen: f.Listen, Port: f.Port, PublicHost: f.PublicHost, SNI: f.SNI, CertFile: f.CertFile, KeyFile: f.KeyFile, Dest: f.Dest, Flow: f.Flow,
	}, nil
}

// withDefaults is f with the security and the flow of a VLESS inbound that says nothing of
// them: REALITY with Vision. Behind a proxy of this host, on loopback, it is none.
func withDefaults(f InboundFlags) InboundFlags {
	if f.Protocol == "vless" && f.Security == "" && !net.ParseIP(f.Listen).IsLoopback() {
		f.Security = "reality"
		f.Flow = cmp.Or(f.Flow, vision)
	}
	return f
}

// FromFlags sets p.Config and p.Link from the flags. It supports only common kinds of vless and
// mtproto inbounds; for any other there is FromNative.
func FromFlags(f InboundFlags, p *corestore.Protocol) error {
	if f.Protocol != "vless" && f.Protocol != mtproto {
		return fmt.Errorf("protocol %q can't be added by flags: give the native Xray inbound with --inbound FILE", f.Protocol)
	}
	if net.ParseIP(f.Listen) == nil {
		return fmt.Errorf("listen address %q is not an IP address", f.Listen)
	}
	if f.Port < 1 || f.Port > 65535 {
		return fmt.Errorf("port %d is out of range: want 1 to 65535", f.Port)
	}
	if f.Protocol == mtproto {
		if err := allowOnly(f, "mtproto", "tls-domain", "secure", "classic", "mask", "ad-tag", "public-host"); err != nil {
			return err
		}
		return mtprotoFromFlags(f, p)
	}
	f = withDefaults(f)
	flow, err := flowOf(f, f.Security)
	if err != nil {
		return err
	}
	object := vlessInbound{
		Listen: f.Listen, Port: f.Port, Protocol: f.Protocol,
		Settings:       map[string]any{"decryption": "none"},
		StreamSettings: map[string]any{"network": "raw", "security": f.Security},
	}
	p.Link = coreapi.LinkHints{SNI: f.SNI, Flow: flow, PublicHost: f.PublicHost}
	switch f.Security {
	case "", "none":
		if err := allowOnly(f, "security none", "security", "flow", "public-host"); err != nil {
			return err
		}
		object.StreamSettings["security"] = "none"
	case "tls":
		if err := allowOnly(f, "security tls", "security", "flow", "sni", "cert", "key", "public-host"); err != nil {
			return err
		}
		if f.CertFile == "" || f.KeyFile == "" {
			return errors.New("tls needs --cert and --key, the paths of the certificate on the node")
		}
		object.StreamSettings["tlsSettings"] = map[string]any{
			"certificates": []any{map[string]any{"certificateFile": f.CertFile, "keyFile": f.KeyFile}},
		}
	case "reality":
		if err := allowOnly(f, "security reality", "security", "flow", "sni", "dest", "public-host"); err != nil {
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

// reality returns realitySettings with a new key pair and short id. It sets the default SNI.
func reality(f InboundFlags, p *corestore.Protocol) (map[string]any, error) {
	if p.Link.SNI == "" {
		p.Link.SNI = defaultSNI
	}
	dest := f.Dest
	if dest == "" {
		dest = net.JoinHostPort(p.Link.SNI, "443")
	}
	key, shortID, err := realityKeys()
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"dest":        dest,
		"serverNames": []string{p.Link.SNI},
		"privateKey":  key,
		"shortIds":    []string{shortID},
	}, nil
}
