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

// mtproto is the name of the protocol that telemt serves, and not Xray.
const mtproto = "mtproto"

// mtprotoInbound is the contract's MTProto inbound.
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
}

// mtprotoOptions is what all MTProto inbounds of a node share; see the
// contract's MtProtoServiceConfig.
type mtprotoOptions struct {
	Upstreams []json.RawMessage          `json:"upstreams,omitempty"`
	Advanced  map[string]json.RawMessage `json:"advanced,omitempty"`
}

// CheckMTProtoOptions finds an error in the options that an operator gives.
func CheckMTProtoOptions(raw []byte) error {
	_, err := parseMTProtoOptions(raw)
	return err
}

// parseMTProtoOptions reads the options; empty means none.
func parseMTProtoOptions(raw []byte) (mtprotoOptions, error) {
	var options mtprotoOptions
	if len(raw) == 0 {
		return options, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&options); err != nil {
		return options, fmt.Errorf("read MTProto options (want upstreams and advanced): %w", err)
	}
	return options, nil
}

// mtprotoService is services.mtproto, nil where the node has no such inbound.
func mtprotoService(protocols []corestore.Protocol, subs []corestore.Subscription, rawOptions []byte) (json.RawMessage, error) {
	options, err := parseMTProtoOptions(rawOptions)
	if err != nil {
		return nil, err
	}
	service := struct {
		Inbounds []mtprotoInbound `json:"inbounds"`
		mtprotoOptions
	}{mtprotoOptions: options}
	clients := make([]mtprotoClient, 0, len(subs))
	for _, sub := range subs {
		clients = append(clients, mtprotoClient{ID: sub.UUID, Secret: sub.MTProtoSecret})
	}
	for _, p := range protocols {
		var in mtprotoInbound
		if err := json.Unmarshal(p.Config, &in); err != nil {
			return nil, fmt.Errorf("protocol %s: read its object: %w", p.Tag, err)
		}
		in.NodeProtocolID, in.Tag, in.Clients = p.ID, p.Tag, clients
		service.Inbounds = append(service.Inbounds, in)
	}
	if len(service.Inbounds) == 0 {
		return nil, nil
	}
	return json.Marshal(service)
}

// mtprotoFromFlags makes the row's Config of flags. A TLS domain switches the TLS
// mode on.
func mtprotoFromFlags(f InboundFlags, p *corestore.Protocol) error {
	in := mtprotoInbound{
		Listen: f.Listen, Port: f.Port, TLSDomains: f.TLSDomains, AdTag: f.AdTag, PublicHost: f.PublicHost,
		Modes: mtprotoModes{Classic: f.Classic, Secure: f.Secure, TLS: len(f.TLSDomains) > 0},
	}
	if f.Mask != "" {
		host, port, err := net.SplitHostPort(f.Mask)
		number, errPort := strconv.Atoi(port)
		if err = errors.Join(err, errPort); err == nil && (number < 1 || number > 65535) {
			err = fmt.Errorf("port %d is none", number)
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

// validate finds what the node would refuse, and links that would lead nowhere.
func (in mtprotoInbound) validate() error {
	if in.Modes == (mtprotoModes{}) {
		return errors.New("mtproto needs a way in: --tls-domain NAME (looks like HTTPS to that site), --secure or --classic")
	}
	if in.Modes.TLS && len(in.TLSDomains) == 0 {
		return errors.New("mtproto's TLS mode needs tlsDomains: sites that it looks like")
	}
	for _, domain := range in.TLSDomains {
		if !domainName.MatchString(domain) {
			return fmt.Errorf("TLS domain %q is no name of a site, as www.example.com", domain)
		}
	}
	if tag, err := hex.DecodeString(in.AdTag); in.AdTag != "" && (err != nil || len(tag) != 16) {
		return errors.New("the ad tag is not of 32 hex digits, as Telegram's @MTProxybot gives it")
	}
	return nil
}

var domainName = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)

// mtprotoLinks are tg:// and https:// for each way in, the ones that look like
// something else first: ee with the domain for TLS, dd for secure, the bare
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
	if host == "" { // not registered yet: nobody knows where it is
		return nil, nil
	}
	var links []string
	for _, secret := range secrets {
		query := url.Values{"server": {host}, "port": {strconv.Itoa(p.Port)}, "secret": {secret}}.Encode()
		links = append(links, "tg://proxy?"+query, "https://t.me/proxy?"+query)
	}
	return links, nil
}
