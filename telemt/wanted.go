package telemt

import (
	"reflect"
	"slices"
	"time"
)

// wanted is what one inbound's telemt should run.
type wanted struct {
	in        Inbound
	upstreams []Upstream
	advanced  map[string]any
}

// each splits a service into its inbounds.
func (s Service) each() map[string]wanted {
	all := make(map[string]wanted, len(s.Inbounds))
	for _, in := range s.Inbounds {
		all[in.Tag] = wanted{in, s.Upstreams, s.Advanced}
	}
	return all
}

func (w wanted) configuration(place Place) table {
	return configuration(w.in, w.upstreams, w.advanced, place)
}

// change is how a running telemt is brought to another configuration.
type change int

const (
	changeNothing change = iota
	changeLive           // it takes the file by itself
	changeReload         // it has to load everything anew
	changeRestart        // its listener moves
)

// difference tells what leads from one configuration to the other. It looks at
// nothing but its arguments.
func difference(from, to wanted) change {
	before, after := from.configuration(Place{}), to.configuration(Place{})
	kind := changeNothing
	for _, name := range slices.Concat(keys(before), keys(after)) {
		if reflect.DeepEqual(before[name], after[name]) {
			continue
		}
		switch {
		case name == "server":
			return changeRestart
		case name == "access" && sameBut(hotAccess, before[name], after[name]):
			kind = max(kind, changeLive)
		default:
			kind = changeReload
		}
	}
	return kind
}

// hotAccess is the part of access that telemt takes from the file by itself
// (src/config/hot_reload.rs).
var hotAccess = []string{
	"users", "user_enabled", "user_ad_tags", "user_max_tcp_conns", "user_expirations", "user_data_quota", "user_rate_limits",
	"user_max_unique_ips", "user_max_unique_ips_mode", "user_max_unique_ips_window_secs",
	"user_max_tcp_conns_global_each", "user_max_unique_ips_global_each", "cidr_rate_limits",
}

// sameBut tells whether two tables differ in no other key than these.
func sameBut(but []string, a, b any) bool {
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

// leaving are the names of those clients of from that to has not.
func leaving(from, to Inbound) []string {
	stay := byID(to.Clients)
	var gone []string
	for _, c := range from.Clients {
		if _, stays := stay[c.ID]; !stays {
			gone = append(gone, from.name(c))
		}
	}
	return gone
}

// rotated are the names of those who stay with another secret or expiry, which
// telemt holds new sessions to alone.
func rotated(from, to Inbound) []string {
	before := byID(from.Clients)
	var changed []string
	for _, c := range to.Clients {
		old, was := before[c.ID]
		if was && (old.Secret != c.Secret || !sameTime(old.ExpiresAt, c.ExpiresAt)) {
			changed = append(changed, to.name(c))
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
