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

// TrustedProxies reads the member of ours of an inbound's Config that names the proxies
// before it, as addresses and networks. It returns nil where there is none.
func Proxies(in state.Inbound) ([]netip.Prefix, error) {
	var config struct {
		Proxies []string `json:"trustedProxies"`
	}
	if err := json.Unmarshal(in.Config, &config); err != nil {
		return nil, err
	}
	if config.Proxies != nil && len(config.Proxies) == 0 {
		return nil, errors.New("trustedProxies is empty, nobody would be let in: name a proxy, or leave the member out")
	}
	var networks []netip.Prefix
	for i, text := range config.Proxies {
		network, err := ParseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("trustedProxies[%d]: %w", i, err)
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// parseNetwork reads an address or a network: 192.0.2.1, 192.0.2.0/24, 2001:db8::/32.
func ParseNetwork(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no address and no network: want such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32", text)
	}
	return network.Masked(), nil
}

// isLocal tells an inbound that nobody reaches from another host: it listens on a loopback
// address or a unix socket, and no packets are turned to it.
func isLocal(w state.WarnedInbound) bool {
	turned := w.Settings.FollowRedirect || !slices.Contains([]string{"", "off"}, strings.ToLower(w.StreamSettings.Sockopt.TProxy))
	return OnLoopback(w.Listen) && !turned
}

func OnLoopback(listen string) bool {
	if path, _ := state.UnixPath(listen); path != "" || listen == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(listen, "[]"))
	return err == nil && address.Unmap().IsLoopback()
}

// Trust is whose word an inbound takes for a client's address.
type Trust struct {
	Proxies       []netip.Prefix // they alone are let in; nil for everybody
	ProxyProtocol bool           // its header is read
	Believed      bool           // what it says
	// Headers of requests may name an address: X-Forwarded-For, and X-Real-IP over gRPC,
	// where sockopt.trustedXForwardedFor names one that the request has.
	Headers bool
}

// Trust tells it: a proxy's, if trustedProxies names it, and without them everybody's who
// reaches an inbound that other hosts can't. A header of a request is not believed beside
// the PROXY protocol: a proxy that writes this one may pass on what the client wrote there.
func Of(in state.Inbound) (Trust, error) {
	proxies, err := Proxies(in)
	if err != nil {
		return Trust{}, err
	}
	w := state.WarnedOf(in)
	trusted, reads := proxies != nil || isLocal(w), w.StreamSettings.ProxyProtocol()
	return Trust{Proxies: proxies, ProxyProtocol: reads, Believed: reads && trusted, Headers: !reads && trusted}, nil
}
