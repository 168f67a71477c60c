package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nodeagent/xray/state"
)

// Proxies returns the networks of an inbound's trustedProxies, a member that node-agent
// adds to Xray's object. It returns nil for an inbound without it.
func Proxies(in state.Inbound) ([]netip.Prefix, error) {
	raw := in.View().TrustedProxies
	if raw == nil {
		return nil, nil
	}
	var texts []string
	if err := json.Unmarshal(raw, &texts); err != nil {
		return nil, fmt.Errorf("read trustedProxies: %w", err)
	}
	if texts != nil && len(texts) == 0 {
		return nil, errors.New("trustedProxies is empty, so nobody would be let in: name a proxy, or leave the member out")
	}
	var networks []netip.Prefix
	for i, text := range texts {
		network, err := ParseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("trustedProxies[%d]: %w", i, err)
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// ParseNetwork reads an address or a network: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32. An
// address becomes a network of one address. An IPv4 address in IPv6 form (::ffff:192.0.2.1)
// becomes the IPv4 address.
func ParseNetwork(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network: want for example 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32", text)
	}
	return network.Masked(), nil
}

// isLocal reports whether other hosts cannot reach the inbound: it listens on a loopback
// address or a unix socket, and the kernel redirects no packets to it.
func isLocal(in state.Inbound) bool {
	v := in.View()
	redirected := v.Settings.FollowRedirect || !slices.Contains([]string{"", "off"}, strings.ToLower(v.Stream.Sockopt.TProxy))
	return OnLoopback(v.Listen) && !redirected
}

// OnLoopback reports whether listen, an inbound's member, is a loopback address or a unix
// socket.
func OnLoopback(listen string) bool {
	if path, _ := state.UnixPath(listen); path != "" || listen == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(listen, "[]"))
	return err == nil && address.Unmap().IsLoopback()
}

// Trust says which sources of a client's address an inbound believes.
type Trust struct {
	// Proxies are the only addresses that may connect; nil where any address may.
	Proxies []netip.Prefix
	// ProxyProtocol is true where the inbound reads the header of the PROXY protocol.
	ProxyProtocol bool
	// Believed is true where the address in the PROXY protocol's header becomes the
	// client's address. Where it is false the header is read and dropped.
	Believed bool
	// Headers is true where a header of a request may name the client's address:
	// X-Forwarded-For. sockopt.trustedXForwardedFor names a header that such a request must
	// have.
	Headers bool
}

// Of decides what the inbound believes. With trustedProxies it believes these proxies.
// Without them it believes every connection, if other hosts cannot reach the inbound, and
// otherwise no connection. Beside the PROXY protocol no header of a request counts: a
// proxy that writes the PROXY protocol may pass on a header that the client wrote.
func Of(in state.Inbound) (Trust, error) {
	proxies, err := Proxies(in)
	if err != nil {
		return Trust{}, err
	}
	trusted, reads := proxies != nil || isLocal(in), in.View().Stream.ProxyProtocol()
	return Trust{Proxies: proxies, ProxyProtocol: reads, Believed: reads && trusted, Headers: !reads && trusted}, nil
}
