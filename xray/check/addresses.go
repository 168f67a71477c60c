package check

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
	"nodeagent/xray/trust"
)

// addressWarnings returns warnings where the address that counts for a client is not the one
// that the configuration seems to ask for.
func addressWarnings(in state.Inbound) []string {
	trust, err := trust.Of(in)
	if err != nil {
		return nil // Changed has refused it, unless it is older than the check
	}
	var all []string
	named := in.View().Stream.NamesForwarded()
	if trust.ProxyProtocol && !trust.Believed {
		all = append(all, "every host can reach this port, so the address in the PROXY protocol is not used and all clients have their proxy's address: name your proxies in trustedProxies")
	}
	switch {
	case !named || trust.Headers:
	case trust.ProxyProtocol:
		all = append(all, "trustedXForwardedFor is not used beside the PROXY protocol, because a proxy may pass on headers that the client wrote: leave one of the two out")
	default:
		all = append(all, "every host can reach this port, so X-Forwarded-For is not used: name your proxies in trustedProxies")
	}
	for _, network := range trust.Proxies {
		if network.Bits() == 0 {
			all = append(all, fmt.Sprintf("trustedProxies has %s, so every host can choose the address that counts for it: name only your proxies", network))
		}
	}
	return all
}

// spoofableAddresses returns warnings about inbounds that believe local connections, where
// clients of this node or of another inbound's fallback can make such connections and so
// choose their address.
func spoofableAddresses(s state.State) []string {
	var warnings []string
	open := slices.ContainsFunc(s.Outbounds, opensLoopback) && !blocksLoopback(s)
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		trust, err := trust.Of(in)
		headers := trust.Headers && in.View().Stream.NamesForwarded()
		if err != nil || !headers && !trust.Believed {
			continue
		}
		path, _ := state.UnixPath(in.View().Listen)
		byLoopback := trust.Proxies == nil && path == "" || slices.ContainsFunc(trust.Proxies, overlapsLoopback)
		if byLoopback && open {
			warnings = append(warnings, fmt.Sprintf("inbound %q: this node's clients reach it over loopback and can choose their address there: take loopback out of finalRules of the outbound, or block 127.0.0.0/8 and ::1 by a routing rule", tag))
		}
		for _, from := range s.Tags() {
			if headers && fallsBackTo(s, from, in) {
				warnings = append(warnings, fmt.Sprintf("inbound %q: the fallback of %q brings clients that can choose their address by X-Forwarded-For: leave trustedXForwardedFor out, and use xver and acceptProxyProtocol", tag, from))
			}
		}
	}
	return warnings
}

var loopbacks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func overlapsLoopback(network netip.Prefix) bool {
	return slices.ContainsFunc(loopbacks, network.Overlaps)
}

// blocksLoopback reports whether a rule matches addresses of loopback. It does not look at the
// rule's outbound: the operator has then decided what happens to such connections.
func blocksLoopback(s state.State) bool {
	for _, rule := range s.RoutingView().Rules {
		for _, text := range rawjson.StringList(string(rule.IP)) {
			network, err := trust.ParseNetwork(text)
			if text == "geoip:private" || err == nil && overlapsLoopback(network) {
				return true
			}
		}
	}
	return false
}

// opensLoopback reports whether a rule of the outbound opens loopback, which the worker keeps all
// clients from otherwise (xray/worker/reach). The node's client_networks are not known here.
func opensLoopback(out state.Outbound) bool {
	var rules []struct {
		Action string          `json:"action"`
		IP     json.RawMessage `json:"ip"`
	}
	if json.Unmarshal(out.View().Settings.FinalRules, &rules) != nil {
		return false // none, or what the dry run refuses
	}
	for _, rule := range rules {
		if !strings.EqualFold(rule.Action, "allow") {
			continue
		}
		for _, text := range rawjson.StringList(string(rule.IP)) {
			network, err := trust.ParseNetwork(text)
			if text == "geoip:private" || err == nil && overlapsLoopback(network) {
				return true
			}
		}
	}
	return false
}

// fallsBackTo reports whether the inbound from has a fallback to a binding of the inbound to.
func fallsBackTo(s state.State, from string, to state.Inbound) bool {
	bindings, err := to.Bindings()
	if err != nil {
		return false
	}
	for _, fallback := range s.Inbounds[from].View().Settings.Fallbacks {
		dest := strings.Trim(string(fallback.Dest), `"`)
		port := dest[strings.LastIndex(dest, ":")+1:]
		if slices.ContainsFunc(bindings, func(b state.Binding) bool {
			return b.Path != "" && b.Path == dest || b.Path == "" && port == strconv.Itoa(int(b.Port))
		}) {
			return true
		}
	}
	return false
}
