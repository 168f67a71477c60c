package service

import (
	"maps"
	"reflect"
	"slices"
	"time"
)

// Change is what it takes to bring a running telemt to another configuration.
type Change int

// The changes, from the one that disturbs least to the one that disturbs most.
const (
	ChangeNone    Change = iota
	ChangeLive           // telemt reads the file and applies it, without ending sessions
	ChangeReload         // a new generation of telemt starts, the old one drains
	ChangeRestart        // the process has to be started again
)

// Diff returns the smallest Change that leads from one configuration to the other.
func Diff(from, to Desired) Change {
	before, after := from.Configuration(NodeSettings{}), to.Configuration(NodeSettings{})
	kind := ChangeNone
	for name := range allKeys(before, after) {
		if reflect.DeepEqual(before[name], after[name]) {
			continue
		}
		switch {
		case name == "server": // the listener's address, or the API's
			return ChangeRestart
		case name == "access" && equalExcept(liveAccessKeys, before[name], after[name]):
			kind = max(kind, ChangeLive)
		default:
			kind = ChangeReload
		}
	}
	return kind
}

// liveAccessKeys are the keys of the table "access" that telemt applies when the file
// changes (telemt, src/config/hot_reload.rs).
var liveAccessKeys = []string{
	"users", "user_enabled", "user_ad_tags", "user_max_tcp_conns", "user_expirations", "user_data_quota", "user_rate_limits",
	"user_max_unique_ips", "user_max_unique_ips_mode", "user_max_unique_ips_window_secs",
	"user_max_tcp_conns_global_each", "user_max_unique_ips_global_each", "cidr_rate_limits",
}

// equalExcept reports whether two tables are equal when the given keys are left out.
func equalExcept(except []string, a, b any) bool {
	before, _ := a.(table)
	after, _ := b.(table)
	for name := range allKeys(before, after) {
		if !slices.Contains(except, name) && !reflect.DeepEqual(before[name], after[name]) {
			return false
		}
	}
	return true
}

// allKeys has the keys that at least one of the tables has.
func allKeys(a, b table) table {
	both := maps.Clone(a)
	if both == nil {
		both = table{}
	}
	maps.Copy(both, b)
	return both
}

// RemovedUsers returns the user names of the clients that from has and to has not.
func RemovedUsers(from, to Inbound) []string {
	stay := byID(to.Clients)
	var removed []string
	for _, c := range from.Clients {
		if _, stays := stay[c.ID]; !stays {
			removed = append(removed, from.UserName(c))
		}
	}
	return removed
}

// ChangedCredentials returns the user names of the clients that from and to both have,
// with another secret. telemt checks it only when a session begins, so that the open sessions
// of these clients have to be ended.
func ChangedCredentials(from, to Inbound) []string {
	before := byID(from.Clients)
	var changed []string
	for _, c := range to.Clients {
		old, existed := before[c.ID]
		if existed && old.Secret != c.Secret {
			changed = append(changed, to.UserName(c))
		}
	}
	return changed
}

// ExpiredUsers returns the user names of the clients whose time is over. telemt looks at it only
// when a session begins, so that the open sessions of these clients have to be ended too.
func ExpiredUsers(in Inbound, now time.Time) []string {
	var expired []string
	for _, c := range in.Clients {
		if ends := c.ends(); ends != nil && !ends.After(now) {
			expired = append(expired, in.UserName(c))
		}
	}
	return expired
}

// NextExpiry returns when the next client's time is over; zero for never.
func NextExpiry(in Inbound, now time.Time) (next time.Time) {
	for _, c := range in.Clients {
		if ends := c.ends(); ends != nil && ends.After(now) && (next.IsZero() || ends.Before(next)) {
			next = *ends
		}
	}
	return next
}

func byID(clients []Client) map[string]Client {
	m := make(map[string]Client, len(clients))
	for _, c := range clients {
		m[c.ID] = c
	}
	return m
}
