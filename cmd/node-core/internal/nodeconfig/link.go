package nodeconfig

import (
	"cmp"
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

// linkSettings has the members of an inbound that a client's link repeats.
type linkSettings struct {
	Settings struct {
		Decryption string `json:"decryption"`
	} `json:"settings"`
	StreamSettings struct {
		Network         string `json:"network"`
		Security        string `json:"security"`
		RealitySettings struct {
			PrivateKey  string   `json:"privateKey"`
			ServerNames []string `json:"serverNames"`
			ShortIDs    []string `json:"shortIds"`
		} `json:"realitySettings"`
		TLSSettings struct {
			ServerName string          `json:"serverName"`
			ALPN       json.RawMessage `json:"alpn"` // a list, or a string with commas
		} `json:"tlsSettings"`
		WSSettings          pathHost `json:"wsSettings"`
		HTTPUpgradeSettings pathHost `json:"httpupgradeSettings"`
		XHTTPSettings       pathHost `json:"xhttpSettings"`
		SplitHTTPSettings   pathHost `json:"splithttpSettings"`
		GRPCSettings        struct {
			Authority   string `json:"authority"`
			ServiceName string `json:"serviceName"`
			MultiMode   bool   `json:"multiMode"`
		} `json:"grpcSettings"`
	} `json:"streamSettings"`
}

type pathHost struct {
	Path string `json:"path"`
	Host string `json:"host"`
	Mode string `json:"mode"` // only of XHTTP
}

// linkNetworks maps names of transports in Xray's configuration to their names in links, where
// those differ.
var linkNetworks = map[string]string{"": "tcp", "raw": "tcp", "websocket": "ws", "splithttp": "xhttp"}

// Links returns the links with which a standard client connects to the inbound. There are none
// for a node that is not registered, and for a protocol other than vless and mtproto.
func Links(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) ([]string, error) {
	if p.Protocol == mtproto {
		return mtprotoLinks(node, p, sub)
	}
	link, err := vlessLink(node, p, sub)
	if link == "" || err != nil {
		return nil, err
	}
	return []string{link}, nil
}

func vlessLink(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) (string, error) {
	if p.Protocol != "vless" || address(node, p) == "" { // the node is not registered, so its address is unknown
		return "", nil
	}
	var in linkSettings
	if err := json.Unmarshal(p.Config, &in); err != nil {
		return "", fmt.Errorf("read inbound %s: %w", p.Tag, err)
	}
	if in.Settings.Decryption != "" && in.Settings.Decryption != "none" {
		return "", nil // VLESS encryption: the client's key is not in the inbound
	}
	query := url.Values{"encryption": {"none"}}
	add(query, "flow", p.Link.Flow)
	add(query, "sni", p.Link.SNI)
	in.addTransport(query)
	if err := in.addSecurity(query); err != nil {
		return "", fmt.Errorf("inbound %s: %w", p.Tag, err)
	}
	link := url.URL{
		Scheme: p.Protocol, User: url.User(sub.UUID), Host: net.JoinHostPort(address(node, p), strconv.Itoa(p.Port)),
		RawQuery: query.Encode(), Fragment: node.Name + "-" + p.Tag,
	}
	return link.String(), nil
}

// add sets a parameter unless its value is empty.
func add(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

func (in linkSettings) addTransport(query url.Values) {
	stream := in.StreamSettings
	network := strings.ToLower(stream.Network)
	if other, is := linkNetworks[network]; is {
		network = other
	}
	add(query, "type", network)
	byNetwork := map[string]pathHost{
		"ws": stream.WSSettings, "httpupgrade": stream.HTTPUpgradeSettings, "xhttp": cmp.Or(stream.XHTTPSettings, stream.SplitHTTPSettings),
	}
	add(query, "path", byNetwork[network].Path)
	add(query, "host", byNetwork[network].Host)
	add(query, "mode", byNetwork[network].Mode)
	if network == "grpc" {
		add(query, "serviceName", stream.GRPCSettings.ServiceName)
		add(query, "authority", stream.GRPCSettings.Authority)
		if stream.GRPCSettings.MultiMode {
			add(query, "mode", "multi")
		}
	}
}

func (in linkSettings) addSecurity(query url.Values) error {
	security := strings.ToLower(in.StreamSettings.Security) // Xray takes capitals too
	if security == "" {
		security = "none"
	}
	add(query, "security", security)
	if security == "tls" {
		add(query, "alpn", alpn(in.StreamSettings.TLSSettings.ALPN))
		if query.Get("sni") == "" {
			add(query, "sni", in.StreamSettings.TLSSettings.ServerName)
		}
	}
	if security != "reality" {
		return nil
	}
	reality := in.StreamSettings.RealitySettings
	public, err := publicKey(reality.PrivateKey)
	if err != nil {
		return err
	}
	add(query, "pbk", public)
	add(query, "fp", "chrome")
	if len(reality.ShortIDs) > 0 {
		add(query, "sid", reality.ShortIDs[0])
	}
	if query.Get("sni") == "" && len(reality.ServerNames) > 0 {
		add(query, "sni", reality.ServerNames[0])
	}
	return nil
}

// alpn returns the protocols with commas between them, as links have them.
func alpn(raw json.RawMessage) string {
	var list []string
	var text string
	if json.Unmarshal(raw, &list) == nil {
		return strings.Join(list, ",")
	}
	_ = json.Unmarshal(raw, &text) // the node refuses anything else
	return text
}

// address returns the address with which clients reach the inbound, empty if it is unknown. It
// is the first of these: the inbound's public host; the inbound's listen address, unless that means all addresses;
// the address that an operator gave the node; the node's host, if it is an IP address or a name
// with a dot; the node's IP address; the node's host. None of a node that is not registered is
// known.
func address(node corestore.Node, p corestore.Protocol) string {
	switch ip := net.ParseIP(p.Listen); {
	case p.Link.PublicHost != "":
		return p.Link.PublicHost
	case ip != nil && !ip.IsUnspecified():
		return p.Listen
	case node.Address != "":
		return node.Address
	case net.ParseIP(node.Host) != nil || strings.Contains(node.Host, "."):
		return node.Host
	case node.IP != "":
		return node.IP
	}
	return node.Host
}

// publicKey returns the public key of REALITY's private key, both in base64url.
func publicKey(private string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(private)
	if err != nil {
		return "", fmt.Errorf("read privateKey of realitySettings: it is not base64url")
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return "", fmt.Errorf("read privateKey of realitySettings: it has %d bytes, want 32", len(raw))
	}
	return base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), nil
}
