package xray

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// chained is the part of an outbound that names the one through which it dials.
type chained struct {
	ProxySettings struct {
		Tag string `json:"tag"`
	} `json:"proxySettings"`
	StreamSettings struct {
		Sockopt struct {
			DialerProxy string `json:"dialerProxy"`
		} `json:"sockopt"`
	} `json:"streamSettings"`
}

// through is the tag of the outbound through which this one dials, and the member that
// names it; empty for none. Xray looks for it among the outbounds alone, not among the
// balancers.
func (o Outbound) through() (tag, member string) {
	var c chained
	_ = json.Unmarshal(o.Config, &c) // what can't be read the worker names
	if c.ProxySettings.Tag != "" {
		return c.ProxySettings.Tag, "proxySettings.tag"
	}
	return c.StreamSettings.Sockopt.DialerProxy, "sockopt.dialerProxy"
}

// chainFindings are outbounds that dial through one that does not exist, or through
// themselves.
func chainFindings(s State) []*InvalidError {
	next := make(map[string]string, len(s.Outbounds))
	for _, o := range s.Outbounds {
		next[o.Tag], _ = o.through()
	}
	var found []*InvalidError
	for _, o := range s.Outbounds {
		tag, member := o.through()
		if tag == "" {
			continue
		}
		if _, there := next[tag]; !there && !s.hasOutbound(tag) {
			found = append(found, invalid(o.Tag, "outbound %q: %s names outbound %q, which does not exist: nothing would get out", o.Tag, member, tag))
		}
		if circle := circleFrom(o.Tag, next); circle != nil {
			found = append(found, invalid(o.Tag, "outbound %q: %s leads in a circle (%s): nothing would get out", o.Tag, member, strings.Join(circle, " > ")))
		}
	}
	return found
}

// circleFrom is the way from an outbound back to itself, nil where there is none.
func circleFrom(tag string, next map[string]string) []string {
	way := []string{tag}
	for at := next[tag]; at != ""; at = next[at] {
		if at == tag {
			return append(way, tag)
		}
		if slices.Contains(way, at) {
			return nil // another one's circle
		}
		way = append(way, at)
	}
	return nil
}

// hasOutbound tells whether there is an outbound of that tag, or a client makes one while
// it is connected.
func (s State) hasOutbound(tag string) bool {
	return s.outboundIndex(tag) >= 0 || slices.Contains(s.reverseTags(), tag)
}

// reverseTags are the tags of the outbounds that clients make while they are connected
// (VLESS reverse).
func (s State) reverseTags() []string {
	var tags []string
	for _, in := range s.Inbounds {
		for _, c := range in.Clients {
			var account struct {
				Reverse struct {
					Tag string `json:"tag"`
				} `json:"reverse"`
			}
			if in.Protocol == "vless" && bytes.Contains(c.Account, []byte(`"reverse":`)) && json.Unmarshal(c.Account, &account) == nil {
				tags = append(tags, account.Reverse.Tag)
			}
		}
	}
	return tags
}
