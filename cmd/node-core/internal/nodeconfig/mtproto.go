package nodeconfig

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"

	"nodeagent/cmd/node-core/internal/corestore"
)

// mtproto is the protocol that telemt serves. All others are served by Xray.
const mtproto = "mtproto"

// mtprotoInbound is an inbound of the contract's MtProtoServiceConfig.
type mtprotoInbound struct {
	NodeProtocolID int64           `json:"nodeProtocolId"`
	Tag            string          `json:"tag"`
	Listen         string          `json:"listen,omitempty"`
	Port           int             `json:"port"`
	Modes          mtprotoModes    `json:"modes"`
	TLSDomains     []string        `json:"tlsDomains,omitempty"`
	Mask           *mtprotoMask    `json:"mask,omitempty"`
	AdTag          string          `json:"adTag,omitempty"`
	PublicHost     string          `json:"publicHost,omitempty"`
	Clients        []mtprotoClient `json:"clients"`
}

type mtprotoModes struct {
	Classic bool `json:"classic"`
	Secure  bool `json:"secure"`
	TLS     bool `json:"tls"`
}

type mtprotoMask struct {
	Host string `json:"host"`
	Port int    `json:"port"`
}

type mtprotoClient struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
	limits
}

// mtprotoOptions are the members of MtProtoServiceConfig that all MTProto inbounds of a node
// share.
type mtprotoOptions struct {
	Upstreams []json.RawMessage          `json:"upstreams,omitempty"`
	Advanced  map[string]json.RawMessage `json:"advanced,omitempty"`
}

// CheckMTProtoOptions returns an error if raw is not the JSON of Node.MTProto.
func CheckMTProtoOptions(raw []byte) error {
	_, err := parseMTProtoOptions(raw)
	return err
}

// parseMTProtoOptions reads Node.MTProto; empty means no options.
func parseMTProtoOptions(raw []byte) (mtprotoOptions, error) {
	var options mtprotoOptions
	if len(raw) == 0 {
		return options, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&options); err != nil {
		return options, fmt.Errorf("read MTProto options: %w; want an object with upstreams and advanced", err)
	}
	return options, nil
}

// mtprotoWith returns the inbound object for the node: the stored one with the clients, the tag
// and nodeProtocolId.
func mtprotoWith(p corestore.Protocol, subs []corestore.Subscription) (mtprotoInbound, error) {
	var in mtprotoInbound
	if err := json.Unmarshal(p.Config, &in); err != nil {
		return in, fmt.Errorf("protocol %s: read the inbound: %w", p.Tag, err)
	}
	in.NodeProtocolID, in.Tag, in.Clients = p.ID, p.Tag, make([]mtprotoClient, 0, len(subs))
	for _, sub := range subs {
		in.Clients = append(in.Clients, mtprotoClientOf(sub))
	}
	return in, nil
}

func mtprotoClientOf(sub corestore.Subscription) mtprotoClient {
	return mtprotoClient{ID: sub.UUID, Secret: sub.MTProtoSecret, limits: limitsOf(sub)}
}

// mtprotoService returns services.mtproto, nil if the node has no MTProto inbound.
func mtprotoService(inbounds []mtprotoInbound, rawOptions []byte) (json.RawMessage, error) {
	options, err := parseMTProtoOptions(rawOptions)
	if err != nil || len(inbounds) == 0 {
		return nil, err
	}
	return json.Marshal(struct {
		Inbounds []mtprotoInbound `json:"inbounds"`
		mtprotoOptions
	}{inbounds, options})
}

// mtprotoFromFlags sets p.Config from the flags. The TLS mode is on if there is a TLS domain.
func mtprotoFromFlags(f InboundFlags, p *corestore.Protocol) error {
	in := mtprotoInbound{
		Listen: f.Listen, Port: f.Port, TLSDomains: f.TLSDomains, AdTag: f.AdTag, PublicHost: f.PublicHost,
		Modes: mtprotoModes{Classic: f.Classic, Secure: f.Secure, TLS: len(f.TLSDomains) > 0},
	}
	if f.Mask != "" {
		host, port, err := net.SplitHostPort(f.Mask)
		number, errPort := strconv.Atoi(port)
		if err = errors.Join(err, errPort); err == nil && (number < 1 || number > 65535) {
			err = fmt.Errorf("port %d is out of range", number)
		}
		if err != nil {
			return fmt.Errorf("mask %q is not HOST:PORT: %w", f.Mask, err)
		}
		in.Mask = &mtprotoMask{Host: host, Port: number}
	}
	if err := in.validate(); err != nil {
		return err
	}
	var err error
	p.Config, err = json.Marshal(in)
	return err
}

// validate refuses what the node would refuse, and domains of which no link could be made.
func (in mtprotoInbound) validate() error {
	if in.Modes == (mtprotoModes{}) {
		return errors.New("mtproto needs a mode: --tls-domain NAME (imitates HTTPS to that site), --secure or --classic")
	}
	if in.Modes.TLS && len(in.TLSDomains) == 0 {
		return errors.New("mtproto's TLS mode needs tlsDomains, the sites that it imitates")
	}
	for _, domain := range in.TLSDomains {
		if !domainName.MatchString(domain) {
			return fmt.Errorf("TLS domain %q is not a host name such as www.example.com", domain)
		}
		if len(domain) > maxTLSDomain {
			return fmt.Errorf("TLS domain %q has %d bytes: Telegram's clients take at most %d", domain, len(domain), maxTLSDomain)
		}
	}
	if tag, err := hex.DecodeString(in.AdTag); in.AdTag != "" && (err != nil || len(tag) != 16) {
		return errors.New("the ad tag is not 32 hex digits, as Telegram's @MTProxybot gives it")
	}
	return nil
}

// maxTLSDomain is the longest domain in a secret that TDLib takes (td/mtproto/ProxySecret.h, MAX_DOMAIN_LENGTH).
const maxTLSDomain = 182

var domainName = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)

// mtprotoLinks returns a tg:// and an https:// link for each mode. The secret in a link starts
// with ee and ends with the domain in hex for TLS, starts with dd for secure, and is the bare
// secret for classic.
func mtprotoLinks(node corestore.Node, p corestore.Protocol, sub corestore.Subscription) ([]string, error) {
	var in mtprotoInbound
	if err := json.Unmarshal(p.Config, &in); err != nil {
		return nil, fmt.Errorf("read inbound %s: %w", p.Tag, err)
	}
	var secrets []string
	if in.Modes.TLS {
		for _, domain := range in.TLSDomains {
			secrets = append(secrets, "ee"+sub.MTProtoSecret+hex.EncodeToString([]byte(domain)))
		}
	}
	if in.Modes.Secure {
		secrets = append(secrets, "dd"+sub.MTProtoSecret)
	}
	if in.Modes.Classic {
		secrets = append(secrets, sub.MTProtoSecret)
	}
	host := in.PublicHost
	if host == "" {
		host = address(node, p)
	}
	if host == "" { // the node is not registered, so its address is unknown
		return nil, nil
	}
	var links []string
	for _, secret := range secrets {
		query := url.Values{"server": {host}, "port": {strconv.Itoa(p.Port)}, "secret": {secret}}.Encode()
		links = append(links, "tg://proxy?"+query, "https://t.me/proxy?"+query)
	}
	return links, nil
}
