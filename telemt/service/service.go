package service

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"time"

	"nodeagent/internal/grant"
)

// Service is Core's MtProtoServiceConfig. Parts makes it and the caller sets the
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
	// Options are options of its own, in the place of the Service's; nil for the Service's.
	// The caller of Parts sets them for an inbound that keeps an earlier form.
	Options *Options `json:"-"`
}

// Options are what the inbounds of a Service have in common.
type Options struct {
	Upstreams []Upstream
	Advanced  map[string]any
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

	// GrantText is Grant as Core writes it; Parts reads it.
	GrantText json.RawMessage `json:"grant"`
	// Grant bounds what the person may move over all inbounds; nil for no bound. The caller of
	// Parts sets its slot.
	Grant *grant.Grant `json:"-"`

	// Slot is the number of the counter that its bytes are added to. The caller of
	// Parts sets it.
	Slot uint32 `json:"-"`
}

// ends returns when the client's time is over, nil for never.
func (c Client) ends() *time.Time {
	if c.Grant != nil && (c.ExpiresAt == nil || c.Grant.ExpiresAt.Before(*c.ExpiresAt)) {
		return &c.Grant.ExpiresAt
	}
	return c.ExpiresAt
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

// Addresses are the TCP addresses that telemt listens on for the inbound. The unspecified address
// of IPv6 stands for all addresses of both IP versions; telemt would listen on IPv6 alone.
func (in Inbound) Addresses() []netip.AddrPort {
	at := in.Address()
	if at.Addr() == netip.IPv6Unspecified() {
		return []netip.AddrPort{at, netip.AddrPortFrom(netip.IPv4Unspecified(), in.Port)}
	}
	return []netip.AddrPort{at}
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
// unspecified address of IPv4 stands for all addresses of IPv4, that of IPv6 for all addresses.
func (in Inbound) Overlaps(o Inbound) bool {
	for _, a := range in.Addresses() {
		for _, b := range o.Addresses() {
			if a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
				(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// UserName is the client's name in telemt's file, API and metrics. Every process on
// the host can read the metrics, because telemt asks for no password there. The name is
// therefore a hash: a client's ID can be its password on another inbound.
func (in Inbound) UserName(c Client) string {
	sum := sha256.Sum256([]byte(in.Tag + "\x00" + c.ID))
	return hex.EncodeToString(sum[:16])
}
