package service

import (
	"reflect"
	"slices"
	"time"
)

// Desired is what one inbound's telemt should run.
type Desired struct {
	Inbound   Inbound
	Upstreams []Upstream
	Advanced  map[string]any
}

// ByTag splits a service into its inbounds.
func (s Service) ByTag() map[string]Desired {
	all := make(map[string]Desired, len(s.Inbounds))
	for _, in := range s.Inbounds {
		all[in.Tag] = Desired{in, s.Upstreams, s.Advanced}
	}
	return all
}

// Configuration is the content of telemt's file, as TOML's tables.
func (d Desired) Configuration(settings NodeSettings) map[string]any {
	return configuration(d.Inbound, d.Upstreams, d.Advanced, settings)
}

// Change is how a running telemt is brought to another configuration.
type Change int

// The ways, from the one that touches least.
const (
	ChangeNone    Change = iota
	ChangeLive           // it takes the file by itself
	ChangeReload         // it has to load everything anew
	ChangeRestart        // its listener moves
)

// Diff tells what leads from one configuration to the other. It looks at
// nothing but its arguments.
func Diff(from, to Desired) Change {
	before, after := from.Configuration(NodeSettings{}), to.Configuration(NodeSettings{})
	kind := ChangeNone
	for _, name := range slices.Concat(keys(before), keys(after)) {
		if reflect.DeepEqual(before[name], after[name]) {
			continue
		}
		switch {
		case name == "server":
			return ChangeRestart
		case name == "access" && equalExcept(liveAccessKeys, before[name], after[name]):
			kind = max(kind, ChangeLive)
		default:
			kind = ChangeReload
		}
	}
	return kind
}

// liveAccessKeys is the part of access that telemt takes from the file by itself
// (src/config/hot_reload.rs).
var liveAccessKeys = []string{
	"users", "user_enabled", "user_ad_tags", "user_max_tcp_conns", "user_expirations", "user_data_quota", "user_rate_limits",
	"user_max_unique_ips", "user_max_unique_ips_mode", "user_max_unique_ips_window_secs",
	"user_max_tcp_conns_global_each", "user_max_unique_ips_global_each", "cidr_rate_limits",
}

// equalExcept tells whether two tables differ in no other key than these.
func equalExcept(but []string, a, b any) bool {
	before, _ := a.(table)
	after, _ := b.(table)
	for _, name := range slices.Concat(keys(before), keys(after)) {
		if !slices.Contains(but, name) && !reflect.DeepEqual(before[name], after[name]) {
			return false
		}
	}
	return true
}

func keys(t table) []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	return names
}

// RemovedUsers are the names of those clients of from that to has not.
func RemovedUsers(from, to Inbound) []string {
	stay := byID(to.Clients)
	var gone []string
	for _, c := range from.Clients {
		if _, stays := stay[c.ID]; !stays {
			gone = append(gone, from.UserName(c))
		}
	}
	return gone
}

// ChangedCredentials are the names of those who stay with another secret or expiry, which
// telemt holds new sessions to alone.
func ChangedCredentials(from, to Inbound) []string {
	before := byID(from.Clients)
	var changed []string
	for _, c := range to.Clients {
		old, was := before[c.ID]
		if was && (old.Secret != c.Secret || !sameTime(old.ExpiresAt, c.ExpiresAt)) {
			changed = append(changed, to.UserName(c))
		}
	}
	return changed
}

func byID(clients []Client) map[string]Client {
	m := make(map[string]Client, len(clients))
	for _, c := range clients {
		m[c.ID] = c
	}
	return m
}

func sameTime(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(*b)
}
