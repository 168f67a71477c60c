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

// maxClients is the highest number of users that telemt names in its metrics. It
// leaves the others out, and their traffic would not be counted.
const maxClients = 4096

// Service is Core's MtProtoServiceConfig. Parse makes it and the caller sets the
// clients' slots. After that it is read-only, because several goroutines share it.
type Service struct {
	Inbounds  []Inbound  `json:"inbounds"`
	Upstreams []Upstream `json:"upstreams"`
	// Advanced has telemt's own keys. They are merged into the file of every inbound.
	// Numbers in it are int64 or float64.
	Advanced map[string]any `json:"advanced"`
}

// Clients returns the number of clients of all inbounds together.
func (s Service) Clients() int {
	n := 0
	for _, in := range s.Inbounds {
		n += len(in.Clients)
	}
	return n
}

// Inbound is one listener and its clients.
type Inbound struct {
	NodeProtocolID int64    `json:"nodeProtocolId"`
	Tag            string   `json:"tag"`
	Listen         string   `json:"listen"` // IP address; empty for all IPv4 addresses
	Port           uint16   `json:"port"`
	Modes          Modes    `json:"modes"`
	TLSDomains     []string `json:"tlsDomains"` // Core's links name the first one
	Mask           *Mask    `json:"mask"`
	AdTag          string   `json:"adTag"`      // 32 hex digits; needs Telegram's middle proxies
	PublicHost     string   `json:"publicHost"` // only Core's links have it; telemt gets no links to make
	Clients        []Client `json:"clients"`
}

// Modes are the variants of MTProto that an inbound accepts.
type Modes struct {
	Classic bool `json:"classic"`
	Secure  bool `json:"secure"`
	TLS     bool `json:"tls"`
}

// Mask is the website that telemt forwards a connection to when it is not one of an
// MTProto client.
type Mask struct {
	Host string `json:"host"`
	Port uint16 `json:"port"` // 0 for telemt's default
}

// Client is one user of an inbound.
type Client struct {
	ID         string     `json:"id"`         // the key in Core's clientMap
	Secret     string     `json:"secret"`     // 32 hex digits
	QuotaBytes int64      `json:"quotaBytes"` // 0 for no quota
	ExpiresAt  *time.Time `json:"expiresAt"`  // nil for never

	// Limits; 0 for none.
	LimitIPs              int   `json:"limitIps"`
	LimitConnections      int   `json:"limitConnections"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond"`

	// Slot is the number of the counter that its bytes are added to. The caller of
	// Parse sets it.
	Slot uint32 `json:"-"`
}

// Upstream is how telemt reaches Telegram's servers. The type decides which of the
// other members are used.
type Upstream struct {
	Type          string   `json:"type"` // direct, socks4, socks5, shadowsocks, or interface: direct through Interface
	Address       string   `json:"address"`
	Username      string   `json:"username"`
	Password      string   `json:"password"` // secret
	URL           string   `json:"url"`      // for shadowsocks; secret
	Interface     string   `json:"interface"`
	BindAddresses []string `json:"bindAddresses"`
}

// InvalidError means that Core's configuration is wrong in itself. Nothing was changed
// because of it, and it will be wrong again at every try.
type InvalidError struct {
	Tag     string // of the inbound; empty if the error is in no inbound
	Message string
}

func (e *InvalidError) Error() string { return e.Message }

func invalid(tag, format string, args ...any) *InvalidError {
	return &InvalidError{Tag: tag, Message: fmt.Sprintf(format, args...)}
}

// Parse reads Core's MtProtoServiceConfig. Members it does not know are an error. Every
// error is an *InvalidError.
func Parse(raw json.RawMessage) (Service, error) {
	var s Service
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	decoder.UseNumber() // for advanced: telemt tells 30 from 30.0
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
		return fmt.Errorf("nodeProtocolId is missing or not positive; without it the inbound's traffic belongs to no protocol")
	case in.Port == 0:
		return fmt.Errorf("port is missing")
	case in.Modes == (Modes{}):
		return fmt.Errorf("modes has none of classic, secure and tls on, so that no client could connect")
	case in.AdTag != "" && !isHex(in.AdTag, 16):
		return fmt.Errorf("adTag is not 32 hex digits")
	case len(in.Clients) > maxClients:
		return fmt.Errorf("%d clients, but telemt counts the traffic of at most %d; split it into several inbounds", len(in.Clients), maxClients)
	}
	if _, err := netip.ParseAddr(in.Listen); in.Listen != "" && err != nil {
		return fmt.Errorf("listen is %q, which is not an IP address", in.Listen)
	}
	ids := map[string]bool{}
	for i, c := range in.Clients {
		switch {
		case c.ID == "":
			return fmt.Errorf("clients[%d] has no id", i)
		case ids[c.ID]:
			return fmt.Errorf("clients[%d]: another client has the same id", i)
		case !isHex(c.Secret, 16):
			return fmt.Errorf("clients[%d]: secret is not 32 hex digits", i)
		case c.QuotaBytes < 0 || c.LimitIPs < 0 || c.LimitConnections < 0 || c.RateUpBitsPerSecond < 0 || c.RateDownBitsPerSecond < 0:
			return fmt.Errorf("clients[%d]: a limit is negative; omit it for no limit", i)
		}
		ids[c.ID] = true
	}
	return nil
}

// Address is the TCP address that the inbound listens on.
func (in Inbound) Address() netip.AddrPort {
	ip, err := netip.ParseAddr(in.Listen)
	if err != nil {
		ip = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(ip, in.Port)
}

// Overlaps reports whether the two inbounds can't listen at the same time. The
// unspecified address stands for all addresses of its own IP version only.
func (in Inbound) Overlaps(o Inbound) bool {
	a, b := in.Address(), o.Address()
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// UserName is the client's name in telemt's file, API and metrics. Every process on
// the host can read the metrics, because telemt asks for no password there. The name is
// therefore a hash: a client's ID can be its password on another inbound.
func (in Inbound) UserName(c Client) string {
	sum := sha256.Sum256([]byte(in.Tag + "\x00" + c.ID))
	return hex.EncodeToString(sum[:16])
}

// reservedKeys are the keys of telemt's file that Advanced can't set. With other values
// the node could not reach telemt, telemt would log secrets, or users that Core does not
// know could connect.
var reservedKeys = []string{
	"include", "show_link", "general.data_path", "general.links.show", "server.api", "server.admin_api", "server.listeners", "server.port",
	"server.metrics_listen", "server.metrics_port", "server.metrics_whitelist", "access.users", "access.user_enabled",
}

func checkAdvanced(advanced map[string]any) error {
	if path := findNull("advanced", advanced); path != "" { // TOML has no null: merging it would remove a key of the node's
		return invalid("", "mtproto %s is null; omit it instead", path)
	}
	for _, path := range reservedKeys {
		var at any = advanced
		for name := range strings.SplitSeq(path, ".") {
			part, _ := at.(map[string]any)
			at = part[name]
		}
		if at != nil {
			return invalid("", "mtproto advanced.%s is set by the node; remove it from advanced", path)
		}
	}
	return nil
}

// findNull returns the path of the first null in the JSON tree, or "" if there is none.
func findNull(path string, tree any) string {
	switch v := tree.(type) {
	case nil:
		return path
	case map[string]any:
		for name, value := range v {
			if found := findNull(path+"."+name, value); found != "" {
				return found
			}
		}
	case []any:
		for i, value := range v {
			if found := findNull(fmt.Sprintf("%s[%d]", path, i), value); found != "" {
				return found
			}
		}
	}
	return ""
}

// convertNumbers replaces each json.Number in the tree with an int64, or with a float64
// if it is not a whole number. It changes the tree in place.
func convertNumbers(tree any) any {
	switch v := tree.(type) {
	case json.Number:
		if whole, err := v.Int64(); err == nil {
			return whole
		}
		fraction, _ := v.Float64() // can't fail: the decoder has checked it
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
			return fmt.Errorf("type interface needs an interface")
		}
		return nil
	case "socks4", "socks5":
		if u.Address == "" {
			return fmt.Errorf("type %s needs an address", u.Type)
		}
		return nil
	case "shadowsocks":
		if u.URL == "" {
			return fmt.Errorf("type shadowsocks needs a url")
		}
		return nil
	}
	return fmt.Errorf("type is %q; want direct, socks4, socks5, shadowsocks or interface", u.Type)
}

// isHex reports whether s is size bytes as hex digits.
func isHex(s string, size int) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == size
}
