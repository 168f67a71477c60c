package telemt

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// maxClients is what telemt's metrics name; more would be counted for nobody.
const maxClients = 4096

// Service is Core's MtProtoServiceConfig.
type Service struct {
	Inbounds  []Inbound  `json:"inbounds"`
	Upstreams []Upstream `json:"upstreams"`
	// Advanced is merged into every inbound's configuration as it is.
	Advanced map[string]any `json:"advanced"`
}

// Inbound is one listener with its clients.
type Inbound struct {
	NodeProtocolID int64    `json:"nodeProtocolId"`
	Tag            string   `json:"tag"`
	Listen         string   `json:"listen"` // IP address; empty for all of IPv4
	Port           uint16   `json:"port"`
	Modes          Modes    `json:"modes"`
	TLSDomains     []string `json:"tlsDomains"` // the first is the one that links name
	Mask           *Mask    `json:"mask"`
	AdTag          string   `json:"adTag"` // 32 hex digits; needs Telegram's middle proxies
	PublicHost     string   `json:"publicHost"`
	Clients        []Client `json:"clients"`
}

// Modes are the ways in that an inbound offers.
type Modes struct {
	Classic bool `json:"classic"`
	Secure  bool `json:"secure"`
	TLS     bool `json:"tls"`
}

// Mask is the site that a stranger is shown.
type Mask struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
}

// Client is one user of an inbound.
type Client struct {
	ID         string     `json:"id"`     // UUID; telemt's name for the user
	Secret     string     `json:"secret"` // 32 hex digits
	QuotaBytes int64      `json:"quotaBytes"`
	ExpiresAt  *time.Time `json:"expiresAt"`

	LimitIPs              int   `json:"limitIps"`
	LimitConnections      int   `json:"limitConnections"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond"`
}

// Upstream is a way out; which members it has depends on the type.
type Upstream struct {
	Type          string   `json:"type"` // direct, socks4, socks5, shadowsocks
	Address       string   `json:"address"`
	Username      string   `json:"username"`
	Password      string   `json:"password"` // secret
	URL           string   `json:"url"`      // of shadowsocks; secret
	Interface     string   `json:"interface"`
	BindAddresses []string `json:"bindAddresses"`
}

// InvalidError means that a configuration was refused before anything was
// touched.
type InvalidError struct {
	Tag     string // of the inbound; empty where it concerns none
	Message string
}

func (e *InvalidError) Error() string { return e.Message }

func invalid(tag, format string, args ...any) *InvalidError {
	return &InvalidError{Tag: tag, Message: fmt.Sprintf(format, args...)}
}

// Parse reads Core's configuration. An error is an *InvalidError.
func Parse(raw json.RawMessage) (Service, error) {
	var s Service
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		return s, invalid("", "read services.mtproto: %v", err)
	}
	tags := map[string]bool{}
	for i, in := range s.Inbounds {
		if in.Tag == "" {
			return s, invalid("", "mtproto inbounds[%d] has no tag", i)
		}
		if tags[in.Tag] {
			return s, invalid(in.Tag, "two mtproto inbounds have the tag %q", in.Tag)
		}
		tags[in.Tag] = true
		if err := in.validate(); err != nil {
			return s, invalid(in.Tag, "mtproto inbound %q: %v", in.Tag, err)
		}
	}
	for i, u := range s.Upstreams {
		if err := u.validate(); err != nil {
			return s, invalid("", "mtproto upstreams[%d]: %v", i, err)
		}
	}
	return s, nil
}

// userName is what telemt takes as one; scope_ means something else to it.
var userName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func (in Inbound) validate() error {
	switch {
	case in.NodeProtocolID <= 0:
		return fmt.Errorf("it has no nodeProtocolId: its traffic could not be attributed")
	case in.Port == 0:
		return fmt.Errorf("it has no port")
	case in.AdTag != "" && !isHex(in.AdTag, 16):
		return fmt.Errorf("its adTag is not of 32 hex digits")
	case len(in.Clients) > maxClients:
		return fmt.Errorf("it has %d clients, and telemt's metrics name at most %d: split it into several inbounds", len(in.Clients), maxClients)
	}
	if _, err := netip.ParseAddr(in.Listen); in.Listen != "" && err != nil {
		return fmt.Errorf("it listens on %q, which is no IP address", in.Listen)
	}
	ids := map[string]bool{}
	for i, c := range in.Clients {
		switch {
		case !userName.MatchString(c.ID) || strings.HasPrefix(c.ID, "scope_"):
			return fmt.Errorf("clients[%d]: the id %q is no name that telemt takes", i, c.ID)
		case ids[c.ID]:
			return fmt.Errorf("clients[%d]: the id %q stands twice", i, c.ID)
		case !isHex(c.Secret, 16):
			return fmt.Errorf("client %s: its secret is not of 32 hex digits", c.ID)
		case c.QuotaBytes < 0 || c.LimitIPs < 0 || c.LimitConnections < 0 || c.RateUpBitsPerSecond < 0 || c.RateDownBitsPerSecond < 0:
			return fmt.Errorf("client %s: a limit is negative; leave it out for no limit", c.ID)
		}
		ids[c.ID] = true
	}
	return nil
}

func (u Upstream) validate() error {
	switch u.Type {
	case "direct":
		return nil
	case "socks4", "socks5":
		if u.Address == "" {
			return fmt.Errorf("%s has no address", u.Type)
		}
		return nil
	case "shadowsocks":
		if u.URL == "" {
			return fmt.Errorf("shadowsocks has no url")
		}
		return nil
	}
	return fmt.Errorf("type %q is unknown: want direct, socks4, socks5 or shadowsocks", u.Type)
}

func isHex(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size
}
