package service

import (
	"bytes"
	"fmt"
	"maps"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// NodeSettings is what the node decides for one inbound's process.
type NodeSettings struct {
	DataDir          string // absolute
	APIAddr          string // on loopback
	MetricsAddr      string // on loopback
	APIAuthorization string // secret; the API's Authorization header
	// Writable lets the API change things: a release that can reload its
	// configuration while sessions go on does so through the API alone.
	Writable bool
	// SentinelSecret is a random secret, 32 hex digits: without any user telemt makes
	// one of its own, with a secret of zeros.
	SentinelSecret string
	// Disabled are names whose open sessions have to end: telemt cancels those
	// of a disabled user, and not those of one that is gone from the file.
	Disabled []string
}

// sentinelName is a user that is always there and never enabled.
const sentinelName = "node-agent-sentinel"

// loopback may reach the API and the metrics.
const loopback = "127.0.0.0/8"

type table = map[string]any

// Render writes an inbound's whole configuration as telemt 3.4.14 and later
// read it. It is the same for the same arguments. The inbound is one that Parse
// has returned.
func Render(in Inbound, upstreams []Upstream, advanced map[string]any, settings NodeSettings) ([]byte, error) {
	var out bytes.Buffer
	encoder := toml.NewEncoder(&out)
	encoder.SetIndentTables(false)
	if err := encoder.Encode(configuration(in, upstreams, advanced, settings)); err != nil {
		return nil, fmt.Errorf("render %s: %w", in.Tag, err)
	}
	return out.Bytes(), nil
}

func configuration(in Inbound, upstreams []Upstream, advanced map[string]any, settings NodeSettings) table {
	listen := in.Address().Addr()
	config := table{
		"general": table{
			"config_strict":  true,
			"data_path":      settings.DataDir,
			"disable_colors": true,
			// Ad tags come from Telegram's middle proxies. Shadowsocks
			// upstreams can't reach those.
			"use_middle_proxy":       in.AdTag != "" && !hasShadowsocks(upstreams),
			"middle_proxy_nat_probe": false, // no STUN, no look-up of the public address
			"modes":                  table{"classic": in.Modes.Classic, "secure": in.Modes.Secure, "tls": in.Modes.TLS},
			"links":                  table{"show": []string{}}, // or every secret is logged
		},
		"network": table{"ipv6": listen.Is6(), "stun_use": false, "http_ip_detect_urls": []string{}},
		"server": table{
			"metrics_listen":    settings.MetricsAddr,
			"metrics_whitelist": []string{loopback},
			"api": table{
				"enabled": true, "listen": settings.APIAddr, "whitelist": []string{loopback},
				"auth_header": settings.APIAuthorization, "read_only": !settings.Writable,
			},
			"listeners": []table{{"ip": listen.String(), "port": in.Port}},
		},
		"censorship": censorship(in),
		"access":     access(in, settings),
	}
	if ways := upstreamTables(upstreams); len(ways) > 0 {
		config["upstreams"] = ways
	}
	merge(config, advanced)
	return config
}

// fakeCertLength, in bytes, is not telemt's default: for that one telemt takes a
// random length at every load, and then says that a restart is required
// (src/config/load.rs).
const fakeCertLength = 2000

func censorship(in Inbound) table {
	t := table{"mask": in.Mask != nil, "tls_emulation": in.Mask != nil, "fake_cert_len": fakeCertLength}
	if len(in.TLSDomains) > 0 {
		t["tls_domain"] = in.TLSDomains[0]
	}
	if len(in.TLSDomains) > 1 {
		t["tls_domains"] = in.TLSDomains[1:]
	}
	if in.Mask != nil {
		t["mask_host"] = in.Mask.Host
		if in.Mask.Port != 0 {
			t["mask_port"] = in.Mask.Port
		}
	}
	return t
}

func access(in Inbound, settings NodeSettings) table {
	users, enabled := table{sentinelName: settings.SentinelSecret}, table{sentinelName: false}
	connections, addresses, quotas, expirations, rates, tags := table{}, table{}, table{}, table{}, table{}, table{}
	for _, c := range in.Clients {
		name := in.UserName(c)
		users[name] = c.Secret
		put(connections, name, c.LimitConnections)
		put(addresses, name, c.LimitIPs)
		put(quotas, name, c.QuotaBytes)
		if c.ExpiresAt != nil {
			expirations[name] = c.ExpiresAt.UTC().Format(time.RFC3339)
		}
		rate := table{}
		put(rate, "up_bps", c.RateUpBitsPerSecond)
		put(rate, "down_bps", c.RateDownBitsPerSecond)
		if len(rate) > 0 {
			rates[name] = rate
		}
		if in.AdTag != "" {
			tags[name] = in.AdTag
		}
	}
	for _, name := range settings.Disabled {
		enabled[name] = false
	}
	t := table{"users": users, "user_enabled": enabled}
	for name, part := range map[string]table{
		"user_max_tcp_conns": connections, "user_max_unique_ips": addresses, "user_data_quota": quotas,
		"user_expirations": expirations, "user_rate_limits": rates, "user_ad_tags": tags,
	} {
		if len(part) > 0 {
			t[name] = part
		}
	}
	return t
}

// put sets a limit, where there is one.
func put[N int | int64](t table, name string, limit N) {
	if limit > 0 {
		t[name] = limit
	}
}

func upstreamTables(upstreams []Upstream) []table {
	var tables []table
	for _, u := range upstreams {
		t := table{"type": u.Type}
		if u.Type == "interface" {
			t["type"] = "direct"
		}
		for name, value := range map[string]string{
			"address": u.Address, "username": u.Username, "password": u.Password, "url": u.URL, "interface": u.Interface,
		} {
			if value != "" {
				t[name] = value
			}
		}
		if len(u.BindAddresses) > 0 {
			t["bind_addresses"] = u.BindAddresses
		}
		tables = append(tables, t)
	}
	return tables
}

func hasShadowsocks(upstreams []Upstream) bool {
	for _, u := range upstreams {
		if u.Type == "shadowsocks" {
			return true
		}
	}
	return false
}

// merge puts the operator's keys into the configuration, table by table.
func merge(into table, advanced map[string]any) {
	for name, value := range advanced {
		inner, isTable := value.(map[string]any)
		have, both := into[name].(table)
		if isTable && both {
			have = maps.Clone(have)
			merge(have, inner)
			into[name] = have
			continue
		}
		into[name] = value
	}
}
