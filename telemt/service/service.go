package service

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// maxClients is what telemt's metrics name; more would be counted for nobody.
const maxClients = 4096

// Service is Core's MtProtoServiceConfig. Once its slots are set nobody changes
// it.
type Service struct {
	Inbounds  []Inbound  `json:"inbounds"`
	Upstreams []Upstream `json:"upstreams"`
	// Advanced is merged into every inbound's configuration as it is.
	Advanced map[string]any `json:"advanced"`
}

// Clients returns how many clients all inbounds have together.
func (s Service) Clients() int {
	n := 0
	for _, in := range s.Inbounds {
		n += len(in.Clients)
	}
	return n
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
	AdTag          string   `json:"adTag"`      // 32 hex digits; needs Telegram's middle proxies
	PublicHost     string   `json:"publicHost"` // Core's links have it; telemt makes none
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
	ID         string     `json:"id"`     // its key in Core's client map
	Secret     string     `json:"secret"` // 32 hex digits
	QuotaBytes int64      `json:"quotaBytes"`
	ExpiresAt  *time.Time `json:"expiresAt"`

	LimitIPs              int   `json:"limitIps"`
	LimitConnections      int   `json:"limitConnections"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond"`

	Slot uint32 `json:"-"` // where its bytes are counted; the caller's number
}

// Upstream is a way out; which members it has depends on the type.
type Upstream struct {
	Type          string   `json:"type"` // direct, socks4, socks5, shadowsocks; interface is direct through one
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
	decoder.UseNumber() // in advanced, where 30 and 30.0 are two things to telemt
	if err := decoder.Decode(&s); err != nil {
		return s, invalid("", "read services.mtproto: %v", err)
	}
	if s.Advanced != nil {
		if err := checkAdvanced(s.Advanced); err != nil {
			return s, err
		}
		s.Advanced, _ = convertNumbers(s.Advanced).(map[string]any)
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
		for _, other := range s.Inbounds[:i] {
			if in.Overlaps(other) {
				return s, invalid(in.Tag, "mtproto inbounds %q and %q both listen on port %d", other.Tag, in.Tag, in.Port)
			}
		}
	}
	for i, u := range s.Upstreams {
		if err := u.validate(); err != nil {
			return s, invalid("", "mtproto upstreams[%d]: %v", i, err)
		}
	}
	return s, nil
}

func (in Inbound) validate() error {
	switch {
	case in.NodeProtocolID <= 0:
		return fmt.Errorf("it has no nodeProtocolId: its traffic could not be attributed")
	case in.Port == 0:
		return fmt.Errorf("it has no port")
	case in.Modes == (Modes{}):
		return fmt.Errorf("none of its modes (classic, secure, tls) is on, so nobody could connect")
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
		case c.ID == "":
			return fmt.Errorf("clients[%d] has no id", i)
		case ids[c.ID]:
			return fmt.Errorf("clients[%d]: its id stands twice", i)
		case !isHex(c.Secret, 16):
			return fmt.Errorf("clients[%d]: its secret is not of 32 hex digits", i)
		case c.QuotaBytes < 0 || c.LimitIPs < 0 || c.LimitConnections < 0 || c.RateUpBitsPerSecond < 0 || c.RateDownBitsPerSecond < 0:
			return fmt.Errorf("clients[%d]: a limit is negative; leave it out for no limit", i)
		}
		ids[c.ID] = true
	}
	return nil
}

// Address is where the inbound listens.
func (in Inbound) Address() netip.AddrPort {
	ip, err := netip.ParseAddr(in.Listen)
	if err != nil {
		ip = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(ip, in.Port)
}

func (in Inbound) Overlaps(o Inbound) bool {
	a, b := in.Address(), o.Address()
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// UserName is what telemt calls a client. Its metrics need no key, and any process of
// the host can read them: they must not tell the client's id, with which it may
// connect to other inbounds.
func (in Inbound) UserName(c Client) string {
	sum := sha256.Sum256([]byte(in.Tag + "\x00" + c.ID))
	return hex.EncodeToString(sum[:16])
}

// reservedKeys are the parts of telemt's configuration that are the node's alone:
// with others it could not be reached, would log secrets, or would let users in
// who are not Core's.
var reservedKeys = []string{
	"include", "show_link", "general.data_path", "general.links.show", "server.api", "server.admin_api", "server.listeners", "server.port",
	"server.metrics_listen", "server.metrics_port", "server.metrics_whitelist", "access.users", "access.user_enabled",
}

func checkAdvanced(advanced map[string]any) error {
	if path := findNull("advanced", advanced); path != "" { // TOML has none: it would remove the node's own
		return invalid("", "mtproto %s is null; leave it out", path)
	}
	for _, path := range reservedKeys {
		var at any = advanced
		for name := range strings.SplitSeq(path, ".") {
			part, _ := at.(map[string]any)
			at = part[name]
		}
		if at != nil {
			return invalid("", "mtproto advanced.%s is the node's own and can't be set", path)
		}
	}
	return nil
}

// findNull is the place of a null in the tree, empty where there is none.
func findNull(place string, tree any) string {
	switch v := tree.(type) {
	case nil:
		return place
	case map[string]any:
		for name, value := range v {
			if path := findNull(place+"."+name, value); path != "" {
				return path
			}
		}
	case []any:
		for i, value := range v {
			if path := findNull(fmt.Sprintf("%s[%d]", place, i), value); path != "" {
				return path
			}
		}
	}
	return ""
}

// convertNumbers returns the tree with JSON's numbers as int64 or float64.
func convertNumbers(tree any) any {
	switch v := tree.(type) {
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		fraction, _ := v.Float64() // the decoder took it for a number
		return fraction
	case map[string]any:
		for name, value := range v {
			v[name] = convertNumbers(value)
		}
	case []any:
		for i, value := range v {
			v[i] = convertNumbers(value)
		}
	}
	return tree
}

func (u Upstream) validate() error {
	switch u.Type {
	case "direct", "interface":
		if u.Type == "interface" && u.Interface == "" {
			return fmt.Errorf("interface has no interface")
		}
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
	return fmt.Errorf("type %q is unknown: want direct, socks4, socks5, shadowsocks or interface", u.Type)
}

func isHex(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size
}
