package nodeconfig

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
)

// linked is the part of an inbound that a client's link repeats.
type linked struct {
	StreamSettings struct {
		Network         string `json:"network"`
		Security        string `json:"security"`
		RealitySettings struct {
			PrivateKey  string   `json:"privateKey"`
			ServerNames []string `json:"serverNames"`
			ShortIDs    []string `json:"shortIds"`
		} `json:"realitySettings"`
		WSSettings          pathHost `json:"wsSettings"`
		HTTPUpgradeSettings pathHost `json:"httpupgradeSettings"`
		XHTTPSettings       pathHost `json:"xhttpSettings"`
		GRPCSettings        struct {
			ServiceName string `json:"serviceName"`
		} `json:"grpcSettings"`
	} `json:"streamSettings"`
}

type pathHost struct {
	Path string `json:"path"`
	Host string `json:"host"`
}

// Link is the link with which a stock client connects, empty for a protocol
// that has none here.
func Link(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) (string, error) {
	if p.Protocol != "vless" || address(node, p) == "" { // not registered yet: nobody knows where it is
		return "", nil
	}
	var in linked
	if err := json.Unmarshal(p.Config, &in); err != nil {
		return "", fmt.Errorf("read inbound %s: %w", p.Tag, err)
	}
	query := url.Values{"encryption": {"none"}}
	add := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	network := in.StreamSettings.Network
	if network == "" || network == "raw" {
		network = "tcp"
	}
	add("type", network)
	add("flow", p.Link.Flow)
	add("sni", p.Link.SNI)
	switch network {
	case "ws":
		add("path", in.StreamSettings.WSSettings.Path)
		add("host", in.StreamSettings.WSSettings.Host)
	case "httpupgrade":
		add("path", in.StreamSettings.HTTPUpgradeSettings.Path)
		add("host", in.StreamSettings.HTTPUpgradeSettings.Host)
	case "xhttp":
		add("path", in.StreamSettings.XHTTPSettings.Path)
		add("host", in.StreamSettings.XHTTPSettings.Host)
	case "grpc":
		add("serviceName", in.StreamSettings.GRPCSettings.ServiceName)
	}
	security := in.StreamSettings.Security
	if security == "" {
		security = "none"
	}
	add("security", security)
	if security == "reality" {
		reality := in.StreamSettings.RealitySettings
		public, err := publicKey(reality.PrivateKey)
		if err != nil {
			return "", fmt.Errorf("inbound %s: %w", p.Tag, err)
		}
		add("pbk", public)
		add("fp", "chrome")
		if len(reality.ShortIDs) > 0 {
			add("sid", reality.ShortIDs[0])
		}
		if p.Link.SNI == "" && len(reality.ServerNames) > 0 {
			add("sni", reality.ServerNames[0])
		}
	}
	link := url.URL{
		Scheme: p.Protocol, User: url.User(sub.UUID), Host: net.JoinHostPort(address(node, p), strconv.Itoa(p.Port)),
		RawQuery: query.Encode(), Fragment: node.Name + "-" + p.Tag,
	}
	return link.String(), nil
}

// address is where clients reach the inbound: its own one where it listens on
// one; else the node's host where that is a name of the internet or an address,
// and not the bare name of a machine; else what the node said of its address.
func address(node corestore.Node, p corestore.Protocol) string {
	switch ip := net.ParseIP(p.Listen); {
	case ip != nil && !ip.IsUnspecified():
		return p.Listen
	case net.ParseIP(node.Host) != nil || strings.Contains(node.Host, "."):
		return node.Host
	case node.IP != "":
		return node.IP
	}
	return node.Host
}

// publicKey is REALITY's, of the private one in the inbound.
func publicKey(private string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(private)
	if err != nil {
		return "", fmt.Errorf("read REALITY's privateKey: it is not base64url")
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return "", fmt.Errorf("read REALITY's privateKey: it has %d bytes, want 32", len(raw))
	}
	return base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}
