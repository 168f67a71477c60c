package sublink

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/share"
)

// format is a form of the answer.
type format struct {
	name        string // behind the token in the path
	contentType string
	extension   string // of the file that an application stores
	agents      []string
	// write writes the whole answer, or, with perWay set, the part of a way that is alone.
	write  func([]nodeconfig.Way) ([]byte, error)
	perWay bool
	base64 bool // the answer is encoded in base64
}

// formats are the forms of the answer. An application gets the first one of whose agents its
// User-Agent has a word, in small letters, and the list of links otherwise.
var formats = []format{
	{"mihomo", "text/yaml; charset=utf-8", "yaml", []string{"clash", "mihomo", "stash", "flclash", "koala"}, mihomo, false, false},
	{"sing-box", "application/json; charset=utf-8", "json", []string{"sing-box", "sfa/", "sfi/", "sfm/", "sft/"}, singBox, false, false},
	{"xray", "application/json; charset=utf-8", "json", nil, xray, false, false},
	{"plain", "text/plain; charset=utf-8", "txt", nil, plain, true, false},
	// The list in base64, as the applications around Xray read it.
	{"links", "text/plain; charset=utf-8", "txt", nil, plain, true, true},
}

// formatNamed returns the format with this name, nil for none.
func formatNamed(name string) *format {
	for i := range formats {
		if formats[i].name == name {
			return &formats[i]
		}
	}
	return nil
}

// formatFor returns the format for an application.
func formatFor(userAgent string) *format {
	userAgent = strings.ToLower(userAgent)
	for i := range formats {
		for _, word := range formats[i].agents {
			if strings.Contains(userAgent, word) {
				return &formats[i]
			}
		}
	}
	return formatNamed("links")
}

// plain is one link a line. The https:// form of a Telegram link is left out, since applications
// would take it for an HTTP proxy.
func plain(ways []nodeconfig.Way) ([]byte, error) {
	var b strings.Builder
	for _, w := range ways {
		for _, link := range w.Links {
			if !strings.HasPrefix(link, "https://t.me/") {
				b.WriteString(link + "\n")
			}
		}
	}
	return []byte(b.String()), nil
}

// outbounds writes the endpoints in one of share's forms and leaves out those that the form cannot
// say. Each has a name of its own, which is none of the groups'.
func outbounds(ways []nodeconfig.Way, form func(share.Endpoint) (map[string]any, error)) (list []map[string]any, names []string) {
	taken := map[string]bool{chosen: true, automatic: true, "direct": true, "DIRECT": true, "REJECT": true}
	for _, w := range ways {
		if w.Endpoint == nil {
			continue
		}
		e := *w.Endpoint
		for n := 2; taken[e.Name]; n++ {
			e.Name = fmt.Sprintf("%s %d", w.Endpoint.Name, n)
		}
		outbound, err := form(e)
		if err != nil {
			continue
		}
		taken[e.Name] = true
		list, names = append(list, outbound), append(names, e.Name)
	}
	return list, names
}

const (
	chosen    = "Proxy"   // the group that a user chooses from
	automatic = "Fastest" // the group that measures
	probe     = "https://www.gstatic.com/generate_204"
)

// mihomo is a whole configuration of mihomo: everything goes through the group that the user
// chooses from, but for private addresses.
func mihomo(ways []nodeconfig.Way) ([]byte, error) {
	proxies, names := outbounds(ways, share.MihomoProxy)
	config := map[string]any{
		"mixed-port": 7890, "mode": "rule", "log-level": "warning",
		"dns":     map[string]any{"enable": true, "enhanced-mode": "fake-ip", "nameserver": []string{"https://1.1.1.1/dns-query", "https://8.8.8.8/dns-query"}},
		"proxies": proxies,
		"rules":   []string{"IP-CIDR,127.0.0.0/8,DIRECT,no-resolve", "IP-CIDR,10.0.0.0/8,DIRECT,no-resolve", "IP-CIDR,172.16.0.0/12,DIRECT,no-resolve", "IP-CIDR,192.168.0.0/16,DIRECT,no-resolve", "MATCH," + chosen},
	}
	groups := []map[string]any{{"name": chosen, "type": "select", "proxies": append([]string{automatic}, names...)}}
	if len(names) == 0 {
		groups[0]["proxies"] = []string{"REJECT"}
	} else {
		groups = append(groups, map[string]any{"name": automatic, "type": "url-test", "proxies": names, "url": probe, "interval": 300})
	}
	config["proxy-groups"] = groups
	return yaml.Marshal(config)
}

// singBox is a whole configuration of sing-box 1.12 or later for a phone: a tunnel for everything,
// but for private addresses.
func singBox(ways []nodeconfig.Way) ([]byte, error) {
	list, names := outbounds(ways, share.SingBoxOutbound)
	direct := map[string]any{"type": "direct", "tag": "direct"}
	selector := map[string]any{"type": "selector", "tag": chosen, "outbounds": []string{"direct"}}
	all := []map[string]any{selector, direct}
	if len(names) > 0 {
		selector["outbounds"] = append([]string{automatic}, names...)
		all = append(all, map[string]any{"type": "urltest", "tag": automatic, "outbounds": names, "url": probe})
	} else {
		selector["type"], selector["outbounds"] = "block", nil
		delete(selector, "outbounds")
	}
	return json.MarshalIndent(map[string]any{
		"log": map[string]any{"level": "warn"},
		"dns": map[string]any{"final": "remote", "servers": []any{
			map[string]any{"type": "https", "tag": "remote", "server": "1.1.1.1", "detour": chosen},
			// The nodes' own names can't be asked for through a node.
			map[string]any{"type": "local", "tag": "bootstrap"},
		}},
		"inbounds": []any{
			map[string]any{"type": "tun", "tag": "tun", "address": []string{"172.19.0.1/30", "fdfe:dcba:9876::1/126"}, "auto_route": true, "strict_route": true},
			map[string]any{"type": "mixed", "tag": "mixed", "listen": "127.0.0.1", "listen_port": 2080},
		},
		"outbounds": append(all, list...),
		"route": map[string]any{
			"rules": []any{
				map[string]any{"action": "sniff"},
				map[string]any{"protocol": "dns", "action": "hijack-dns"},
				map[string]any{"ip_is_private": true, "outbound": "direct"},
			},
			"final": chosen, "auto_detect_interface": true, "default_domain_resolver": "bootstrap",
		},
	}, "", "  ")
}

// xray is a whole configuration of Xray, whose first outbound is used.
func xray(ways []nodeconfig.Way) ([]byte, error) {
	list, _ := outbounds(ways, share.XrayOutbound)
	return share.XrayConfig(list)
}
