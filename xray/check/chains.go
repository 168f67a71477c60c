package check

import (
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// dialRef is a member of an outbound that names another outbound through which it dials.
type dialRef struct{ member, tag string }

// dialRefs returns the outbounds through which an outbound dials. Xray looks for them
// among the outbounds only, and not among the balancers.
func dialRefs(o state.Outbound) []dialRef {
	v := o.View()
	refs := []dialRef{{"proxySettings.tag", v.ProxySettings.Tag}}
	if v.ProxySettings.Tag == "" { // Xray ignores dialerProxy beside it
		refs = append(refs, dialRef{"sockopt.dialerProxy", v.Stream.Sockopt.DialerProxy})
	}
	for _, s := range []state.SecondDial{v.Stream.XHTTPSettings, v.Stream.SplitHTTPSettings} {
		refs = append(refs,
			dialRef{"downloadSettings.sockopt.dialerProxy", s.DownloadSettings.Sockopt.DialerProxy},
			dialRef{"downloadSettings.sockopt.dialerProxy", s.Extra.DownloadSettings.Sockopt.DialerProxy})
	}
	return slices.DeleteFunc(refs, func(r dialRef) bool { return r.tag == "" })
}

// circularDialing returns a fault for each outbound that dials through itself.
func circularDialing(s state.State) []*fault.Fault {
	next := make(map[string][]dialRef, len(s.Outbounds))
	for _, o := range s.Outbounds {
		next[o.Tag] = dialRefs(o)
	}
	var found []*fault.Fault
	for _, o := range s.Outbounds {
		for _, first := range next[o.Tag] {
			if circle := circleFrom(o.Tag, first, next); circle != nil {
				found = append(found, fault.InText(o.Tag, "outbound %q: %s leads in a circle (%s), so no connection would leave the node: name another outbound", o.Tag, first.member, strings.Join(circle, " > ")))
			}
		}
	}
	return found
}

// circleFrom returns the tags on a path from the outbound tag through first back to tag, nil
// where there is no such path.
func circleFrom(tag string, first dialRef, next map[string][]dialRef) []string {
	seen := map[string]bool{}
	var follow func(to string, path []string) []string
	follow = func(to string, path []string) []string {
		path = append(path, to)
		if to == tag {
			return path
		}
		if seen[to] {
			return nil
		}
		seen[to] = true
		for _, w := range next[to] {
			if circle := follow(w.tag, path); circle != nil {
				return circle
			}
		}
		return nil
	}
	return follow(first.tag, []string{tag})
}
