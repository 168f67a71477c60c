package service

import (
	"bytes"
	"fmt"
	"maps"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// NodeSettings are the values in telemt's file that the node chooses for one process.
type NodeSettings struct {
	DataDir          string // absolute path of the folder for telemt's own files
	APIAddr          string // host:port on loopback
	MetricsAddr      string // host:port on loopback
	APIAuthorization string // secret; the API's Authorization header
	// Writable lets API calls change something. A reload is such a call, and only a
	// release that has reloads needs it.
	Writable bool
	// SentinelSecret is a random secret, 32 hex digits, of a user that is never enabled.
	// Without any user telemt would add one with a secret of zeros.
	SentinelSecret string
	// Disabled are the names of users whose open sessions have to end. telemt ends the
	// sessions of a user who is disabled, but not those of a user who is no longer in
	// the file.
	Disabled []string
}

// sentinelName is the user of NodeSettings.SentinelSecret.
const sentinelName = "node-agent-sentinel"

// loopback are the addresses that may use the API and the metrics.
const loopback = "127.0.0.0/8"

type table = map[string]any

// Render writes telemt's whole configuration file, in the TOML that telemt 3.4.14 and
// later read. The same arguments give the same text. The inbound must come from Parts.
func (d Desired) Render(settings NodeSettings) ([]byte, error) {
	var out bytes.Buffer
	encoder := toml.NewEncoder(&out)
	encoder.SetIndentTables(false)
	if err := encoder.Encode(d.Configuration(settings)); err != nil {
		return nil, fmt.Errorf("render the telemt configuration of %s: %w", d.Inbound.Tag, err)
	}
	return out.Bytes(), nil
}

// Configuration returns the content of telemt's file as a tree of tables.
func (d Desired) Configuration(settings NodeSettings) map[string]any {
	in := d.Inbound
	var listeners []table
	for _, at := range in.Addresses() {
		listeners = append(listeners, table{"ip": at.Addr().String(), "port": in.Port})
	}
	config := table{
		"general": table{
			"config_strict":  true,
			"data_path":      settings.DataDir,
			"disable_colors": true,
			// Only Telegram's middle proxies show ad tags, and telemt can't reach
			// those over a Shadowsocks upstream.
			"use_middle_proxy":       in.AdTag != "" && !hasShadowsocks(d.Upstreams),
			"middle_proxy_nat_probe": false, // no STUN, no request for the public address
			"modes":                  table{"classic": in.Modes.Classic, "secure": in.Modes.Secure, "tls": in.Modes.TLS},
			"links":                  table{"show": []string{}}, // telemt logs the links that it shows, with their secrets
		},
		"network": table{"ipv6": in.Address().Addr().Is6(), "stun_use": false, "http_ip_detect_urls": []string{}},
		"server": table{
			"metrics_listen":    settings.MetricsAddr,
			"metrics_whitelist": []string{loopback},
			"api": table{
				"enabled": true, "listen": settings.APIAddr, "whitelist": []string{loopback},
				"auth_header": settings.APIAuthorization, "read_only": !settings.Writable,
			},
			"listeners": listeners,
		},
		"censorship": censorship(in),
		"access":     access(in, settings),
	}
	if upstreams := upstreamTables(d.Upstreams); len(upstreams) > 0 {
		config["upstreams"] = upstreams
	}
	merge(config, d.Advanced)
	return config
}

// fakeCertLength is the size of the fake TLS certificate, in bytes. It is not telemt's
// default on purpose: telemt replaces the default with a random length at every load,
// and then reports that the changed length needs a restart (telemt,
// src/config/load.rs).
const fakeCertLength = 2000

// censorship returns the table with the site that the inbound imitates. Where Core names no
// mask, a connection that is no client's goes to the first domain itself: telemt would else
// close it without an answer of TLS, by which an inbound with fake TLS is recognised.
func censorship(in Inbound) table {
	masks := in.Mask != nil || in.Modes.TLS
	t := table{"mask": masks, "tls_emulation": masks, "fake_cert_len": fakeCertLength}
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
	} else if masks && len(in.TLSDomains) > 0 {
		t["mask_host"] = in.TLSDomains[0]
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

// put sets a limit unless it is 0, which means none.
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

// merge adds the operator's keys to the configuration. Tables are merged key by key; any
// other value replaces the one that is there.
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
