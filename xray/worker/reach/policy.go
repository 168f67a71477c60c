package reach

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// always are the networks that are the node itself, whatever its interfaces are.
var always = networks(
	"0.0.0.0/8",          // "this host" (RFC 791); Linux connects 0.0.0.0 to loopback
	"127.0.0.0/8",        // loopback
	"169.254.0.0/16",     // link-local; 169.254.169.254 tells the secrets of a cloud's host
	"224.0.0.0/24",       // link-local multicast
	"255.255.255.255/32", // link-local broadcast
	"::/127",             // unspecified, loopback
	"fe80::/10",          // link-local
	"ff01::/16",          // interface-local multicast
	"ff02::/16",          // link-local multicast
)

func networks(texts ...string) *bart.Lite {
	set := &bart.Lite{}
	for _, text := range texts {
		set.Insert(netip.MustParsePrefix(text))
	}
	return set
}

// Policy says which addresses clients may reach. Any goroutine may use it.
type Policy struct {
	open *bart.Lite                // that the operator of the node has opened
	own  atomic.Pointer[bart.Lite] // the node's own addresses, as they are now
	// denied counts the streams that wanted an address that they may not reach.
	denied atomic.Int64
}

// Denied returns how many streams wanted an address that they may not reach.
func (p *Policy) Denied() int64 { return p.denied.Load() }

// New makes a policy that lets clients reach open, whatever is there. It knows the node's own
// addresses from the first Refresh on.
func New(open []netip.Prefix) *Policy {
	p := &Policy{open: &bart.Lite{}}
	for _, network := range open {
		p.open.Insert(network.Masked())
	}
	p.own.Store(&bart.Lite{})
	return p
}

// Denied is the error for an address that clients may not reach.
type Denied struct{ Address netip.Addr }

func (e *Denied) Error() string {
	return fmt.Sprintf("%s is the node itself, which its clients may not reach; the setting xray.client_networks opens networks", e.Address)
}

// Check returns a *Denied where clients may not reach the address.
func (p *Policy) Check(address netip.Addr) error {
	address = address.WithZone("").Unmap()
	if p.open.Contains(address) {
		return nil
	}
	if p.isNode(address) {
		return &Denied{address}
	}
	if address.Is6() {
		for _, inside := range embedded(address) {
			if p.isNode(inside) && !p.open.Contains(inside) {
				return &Denied{address}
			}
		}
	}
	return nil
}

func (p *Policy) isNode(address netip.Addr) bool {
	return always.Contains(address) || p.own.Load().Contains(address)
}

var (
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291 section 2.5.5.1
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
)

// embedded returns the IPv4 addresses that a translator or a tunnel of the host's network would
// take an IPv6 address for.
func embedded(address netip.Addr) []netip.Addr {
	b := address.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case compatible.Contains(address), nat64.Contains(address):
		return []netip.Addr{last}
	case localNAT64.Contains(address):
		// The operator of the translator has chosen the length of the prefix: 96 or 48 bits are
		// usual, with the address in other places (RFC 6052 section 2.2).
		return []netip.Addr{last, netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]})}
	case sixToFour.Contains(address):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return nil
}
