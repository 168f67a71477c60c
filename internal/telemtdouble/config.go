package main

import (
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// config is the part of telemt's configuration file that the double uses.
type config struct {
	Server struct {
		MetricsListen string `toml:"metrics_listen"`
		API           struct {
			Listen     string `toml:"listen"`
			AuthHeader string `toml:"auth_header"`
			ReadOnly   bool   `toml:"read_only"`
		} `toml:"api"`
		Listeners []struct {
			IP   string `toml:"ip"`
			Port int    `toml:"port"`
		} `toml:"listeners"`
	} `toml:"server"`
	Censorship struct {
		TLSDomain string `toml:"tls_domain"`
	} `toml:"censorship"`
	Access      access              `toml:"access"`
	DCOverrides map[string][]string `toml:"dc_overrides"`
}

// access is the part of the file that telemt reads again while it runs, without a reload.
type access struct {
	Users       map[string]string    `toml:"users"`
	Enabled     map[string]bool      `toml:"user_enabled"`
	MaxTCP      map[string]int       `toml:"user_max_tcp_conns"`
	MaxIPs      map[string]int       `toml:"user_max_unique_ips"`
	Quota       map[string]int64     `toml:"user_data_quota"`
	Expirations map[string]string    `toml:"user_expirations"`
	Rates       map[string]rateLimit `toml:"user_rate_limits"`
	AdTags      map[string]string    `toml:"user_ad_tags"`
}

type rateLimit struct {
	Up   int64 `toml:"up_bps"`
	Down int64 `toml:"down_bps"`
}

func (a access) enabled(name string) bool {
	enabled, set := a.Enabled[name]
	return enabled || !set
}

func (a access) secret(name string) []byte {
	secret, err := hex.DecodeString(a.Users[name])
	if err != nil {
		return nil // load has refused the file
	}
	return secret
}

func (a access) names() []string { return slices.Sorted(maps.Keys(a.Users)) }

// refusal is an error with the text that telemt writes, which does not follow our style.
type refusal string

func (r refusal) Error() string { return string(r) }

// fatal is an error over which a running telemt ends, when it reads its changed file.
type fatal string

func (f fatal) Error() string { return string(f) }

// serverKeys are the keys of the table "server" that the double knows.
var serverKeys = []string{"metrics_listen", "metrics_whitelist", "api", "listeners", "max_connections"}

// tables are the top-level tables that the node writes into telemt's file.
var tables = []string{"general", "network", "server", "censorship", "access", "upstreams", "dc_overrides", "timeouts"}

// load reads the file and refuses what telemt refuses.
func load(path string) (config, []byte, error) {
	var c config
	raw, err := os.ReadFile(path)
	if err != nil {
		return c, raw, refusal("Config error: " + err.Error())
	}
	var all map[string]any
	if err := errors.Join(toml.Unmarshal(raw, &c), toml.Unmarshal(raw, &all)); err != nil {
		return c, raw, refusal("Config error: TOML parse error: " + err.Error())
	}
	for name := range all {
		if !slices.Contains(tables, name) {
			return c, raw, refusal("Config error: unknown config keys are not allowed when general.config_strict=true: " + name)
		}
	}
	if server, is := all["server"].(map[string]any); is {
		for name := range server {
			if !slices.Contains(serverKeys, name) {
				return c, raw, fatal("Config error: unknown config keys are not allowed when general.config_strict=true: server." + name)
			}
		}
	}
	if c.Access.Users == nil { // telemt's default
		c.Access.Users = map[string]string{"default": "00000000000000000000000000000000"}
	}
	for _, name := range c.Access.names() {
		if len(c.Access.secret(name)) != 16 {
			return c, raw, refusal("Invalid secret for user " + name + ": Must be 32 hex characters")
		}
	}
	return c, raw, nil
}

func (c config) validate() error {
	if len(c.Access.Users) == 0 {
		return refusal("Config error: No users configured")
	}
	return nil
}
