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
		switch name {
		case "server":
			return changeRestart
		case "access":
			kind = max(kind, changeLive)
		default:
			kind = changeReload
		}
	}
	return kind
}

func keys(t table) []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	return names
}

// leaving are the users of from that to has not.
func leaving(from, to []Client) []string {
	stay := byID(to)
	var gone []string
	for _, c := range from {
		if _, stays := stay[c.ID]; !stays {
			gone = append(gone, c.ID)
		}
	}
	return gone
}

// rotated are the users who stay with another secret or expiry, which telemt
// holds new sessions to alone.
func rotated(from, to []Client) []string {
	before := byID(from)
	var changed []string
	for _, c := range to {
		old, was := before[c.ID]
		if was && (old.Secret != c.Secret || !sameTime(old.ExpiresAt, c.ExpiresAt)) {
			changed = append(changed, c.ID)
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
