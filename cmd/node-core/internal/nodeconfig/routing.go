package nodeconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/xray/versions"
)

// blocked is the tag of the outbound that ends what is blocked. An operator's outbound of that
// tag takes its place.
const blocked = "blocked"

// privateNetworks are the destinations that a node's clients have no business with: this host
// (RFC 1122, RFC 4291), private (RFC 1918, RFC 4193), shared (RFC 6598), link-local (RFC 3927,
// RFC 4291) with the metadata services of clouds, and multicast.
var privateNetworks = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"::/127", "fc00::/7", "fe80::/10", "ff00::/8",
}

// KnowsFinalRules reports whether the node's Xray has finalRules of freedom. Where its version is
// not known yet, it is the one of today.
func KnowsFinalRules(node corestore.Node) bool {
	v, known := versions.OfAgent(node.Agent)
	return !known || !v.Before(refusesAlone)
}

// routingService has the members of services.xray that a routing profile gives.
type routingService struct {
	Routing any             `json:"routing"`
	DNS     json.RawMessage `json:"dns,omitempty"`
	Policy  json.RawMessage `json:"policy,omitempty"`
}

// routeRule is a rule of Xray's routing.
type routeRule struct {
	Domain      []string `json:"domain,omitempty"`
	IP          []string `json:"ip,omitempty"`
	Protocol    []string `json:"protocol,omitempty"`
	OutboundTag string   `json:"outboundTag"`
}

// routingOf returns what a profile gives, and whether it needs the outbound that blocks. nil is
// no profile.
func routingOf(r *corestore.Routing) (s routingService, blocks bool, err error) {
	if r == nil {
		return routingService{Routing: struct{}{}}, false, nil
	}
	rules := []any{}
	for _, rule := range []routeRule{{Protocol: torrents(r)}, {Domain: r.BlockDomains}, {IP: r.BlockIPs}} {
		if len(rule.Protocol)+len(rule.Domain)+len(rule.IP) > 0 {
			rule.OutboundTag, blocks = blocked, true
			rules = append(rules, rule)
		}
	}
	var own []json.RawMessage
	if len(r.Rules) > 0 {
		if err := json.Unmarshal(r.Rules, &own); err != nil {
			return s, false, fmt.Errorf("routing profile %s: its rules are no list: %w", r.Name, err)
		}
	}
	for _, rule := range own {
		var to struct {
			Tag string `json:"outboundTag"`
		}
		blocks = blocks || json.Unmarshal(rule, &to) == nil && to.Tag == blocked
		rules = append(rules, rule)
	}
	object := map[string]any{}
	if len(rules) > 0 {
		object["rules"] = rules
	}
	if r.DomainStrategy != "" {
		object["domainStrategy"] = r.DomainStrategy
	}
	return routingService{object, r.DNS, r.Policy}, blocks, nil
}

// torrents are the protocols to block by what connections look like.
func torrents(r *corestore.Routing) []string {
	if !r.BlockTorrents {
		return nil
	}
	return []string{"bittorrent"}
}

// outboundsWith returns the outbounds of a node with what its profile adds: finalRules that block
// private destinations, which hold for names too, since freedom looks at the address that it is about
// to dial (proxy/freedom/freedom.go:187), and the outbound that blocks.
func outboundsWith(rows corestore.NodeRows, blocks bool) ([]json.RawMessage, error) {
	all, has := []json.RawMessage{}, false
	for _, o := range rows.Outbounds {
		if len(o.Config) == 0 || o.Disabled {
			continue
		}
		config := o.Config
		if rows.Routing != nil && rows.Routing.BlockPrivate && KnowsFinalRules(rows.Node) {
			var err error
			if config, err = withoutPrivate(config); err != nil {
				return nil, fmt.Errorf("outbound %s: %w", o.Tag, err)
			}
		}
		has = has || o.Tag == blocked
		all = append(all, config)
	}
	if blocks && !has {
		all = append(all, json.RawMessage(`{"tag":"`+blocked+`","protocol":"blackhole"}`))
	}
	return all, nil
}

// withoutPrivate adds finalRules that block private destinations to an outbound of freedom that
// has none. What no rule is about goes on as Xray decides.
func withoutPrivate(config json.RawMessage) (json.RawMessage, error) {
	var object, settings map[string]json.RawMessage
	if err := json.Unmarshal(config, &object); err != nil {
		return nil, fmt.Errorf("read the outbound: %w", err)
	}
	var protocol string
	_ = json.Unmarshal(object["protocol"], &protocol) // the node refuses one that is no text
	if name := strings.ToLower(protocol); name != "freedom" && name != "direct" {
		return config, nil
	}
	if raw, ok := object["settings"]; ok {
		if err := json.Unmarshal(raw, &settings); err != nil {
			return nil, fmt.Errorf("read the settings of the outbound: %w", err)
		}
	}
	if _, has := settings["finalRules"]; has {
		return config, nil
	}
	if _, elsewhere := settings["redirect"]; elsewhere {
		return config, nil // an operator's word for where to go
	}
	if settings == nil {
		settings = map[string]json.RawMessage{}
	}
	err := errors.Join(set(settings, "finalRules", []any{map[string]any{"action": "block", "ip": privateNetworks}}), set(object, "settings", settings))
	if err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// withSniffing adds sniffing to the object of an inbound that says nothing of it: connections are
// known by what they look like, and still go where the client wanted.
func withSniffing(object map[string]json.RawMessage, r *corestore.Routing) error {
	if _, has := object["sniffing"]; has || r == nil || !r.BlockTorrents {
		return nil
	}
	return set(object, "sniffing", map[string]any{"enabled": true, "routeOnly": true, "destOverride": []string{"http", "tls", "quic"}})
}

// CheckRouting refuses a profile of which Build could make nothing.
func CheckRouting(r corestore.Routing) error {
	for name, raw := range map[string]json.RawMessage{"dns": r.DNS, "policy": r.Policy} {
		var object map[string]json.RawMessage
		if len(raw) > 0 && (json.Unmarshal(raw, &object) != nil || object == nil) {
			return fmt.Errorf("the %s is no JSON object", name)
		}
	}
	switch r.DomainStrategy {
	case "", "AsIs", "IPIfNonMatch", "IPOnDemand":
	default:
		return fmt.Errorf("domain strategy %q is unknown: want AsIs, IPIfNonMatch or IPOnDemand", r.DomainStrategy)
	}
	_, _, err := routingOf(&r)
	return err
}
