package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// reference is a place in the configuration that names an outbound by its tag, or several
// outbounds by prefixes of their tags.
type reference struct {
	place    string
	owner    string // tag of the outbound, balancer or rule that has the place
	tag      string
	prefixes []string   // instead of a tag
	effect   string     // what happens where no such outbound exists
	kind     fault.Kind // kind of the part that has the place
}

// references returns all references of a state to outbounds.
func references(s state.State) []reference {
	var all []reference
	for _, o := range s.Outbounds {
		for _, way := range dialRefs(o) {
			all = append(all, reference{place: fmt.Sprintf("outbound %q: %s", o.Tag, way.member), owner: o.Tag, tag: way.tag, effect: "no connection leaves the node through it", kind: fault.Outbound})
		}
	}
	routing := s.RoutingView()
	for _, b := range routing.Balancers {
		if b.FallbackTag != "" {
			all = append(all, reference{place: fmt.Sprintf("balancer %q: fallbackTag", b.Tag), owner: b.Tag, tag: b.FallbackTag, effect: "its traffic is dropped", kind: fault.Routing})
		}
		all = append(all, reference{place: fmt.Sprintf("balancer %q: selector", b.Tag), owner: b.Tag, prefixes: append([]string{}, b.Selector...), effect: "it chooses none", kind: fault.Routing})
	}
	for i, rule := range routing.Rules {
		if rule.OutboundTag != "" {
			all = append(all, reference{place: fmt.Sprintf("routing.rules[%d]", i), owner: rule.OutboundTag, tag: rule.OutboundTag, effect: "its traffic is dropped", kind: fault.Routing})
		}
	}
	return all
}

// dangling returns the references to outbounds that neither the state nor a client of it has.
func dangling(s state.State) []reference {
	left := slices.DeleteFunc(references(s), func(r reference) bool {
		return slices.ContainsFunc(s.Outbounds, func(o state.Outbound) bool { return r.names(o.Tag) })
	})
	if len(left) == 0 {
		return nil // the clients need not be decoded
	}
	brought := reverseTags(s)
	return slices.DeleteFunc(left, func(r reference) bool { return slices.ContainsFunc(brought, r.names) })
}

func (r reference) names(tag string) bool {
	if r.prefixes == nil {
		return tag == r.tag
	}
	return slices.ContainsFunc(r.prefixes, func(prefix string) bool { return strings.HasPrefix(tag, prefix) })
}

// alike reports whether two references name the same outbounds, in any place.
func (r reference) alike(o reference) bool {
	return r.tag == o.tag && slices.Equal(r.prefixes, o.prefixes)
}

func (r reference) String() string {
	if r.prefixes == nil {
		return fmt.Sprintf("%s names outbound %q, which does not exist: %s", r.place, r.tag, r.effect)
	}
	return fmt.Sprintf("%s selects no outbound, no tag begins with one of %q: %s", r.place, r.prefixes, r.effect)
}

// checkReferences returns a fault for each reference to an outbound that does not exist. It
// accepts a reference that from has too, and one to an outbound that a client of from brought
// (VLESS reverse). Otherwise the removal of that client would be refused, and the client would
// stay.
func checkReferences(from, to state.State) error {
	broken := dangling(to)
	if len(broken) == 0 {
		return nil
	}
	before, brought := dangling(from), reverseTags(from)
	var all []error
	for _, r := range broken {
		if !slices.ContainsFunc(before, r.alike) && !slices.ContainsFunc(brought, r.names) {
			all = append(all, fault.InText(r.owner, "%s", r).Of(r.kind))
		}
	}
	return errors.Join(all...)
}

// reverseTags returns the tags of the outbounds that clients bring while they are connected
// (VLESS reverse).
func reverseTags(s state.State) []string {
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
