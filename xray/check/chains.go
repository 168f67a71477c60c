package check

import (
	"encoding/json"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// chained is the part of an outbound that names those through which it dials.
type chained struct {
	ProxySettings struct {
		Tag string `json:"tag"`
	} `json:"proxySettings"`
	StreamSettings struct {
		dialing
		XHTTPSettings     downloading `json:"xhttpSettings"`
		SplitHTTPSettings downloading `json:"splithttpSettings"`
	} `json:"streamSettings"`
}

type dialing struct {
	Sockopt struct {
		DialerProxy string `json:"dialerProxy"`
	} `json:"sockopt"`
}

// downloading is XHTTP's, which may dial a second time for the way back.
type downloading struct {
	DownloadSettings dialing `json:"downloadSettings"`
	Extra            struct {
		DownloadSettings dialing `json:"downloadSettings"`
	} `json:"extra"`
}

// way names an outbound through which another one dials.
type dialRef struct{ member, tag string }

// waysOf are those of an outbound. Xray looks for them among the outbounds alone, not among
// the balancers.
func dialRefs(o state.Outbound) []dialRef {
	var c chained
	_ = json.Unmarshal(o.Config, &c) // what can't be read the worker names
	stream := c.StreamSettings
	ways := []dialRef{{"proxySettings.tag", c.ProxySettings.Tag}}
	if c.ProxySettings.Tag == "" { // or else it is not looked at
		ways = append(ways, dialRef{"sockopt.dialerProxy", stream.Sockopt.DialerProxy})
	}
	for _, s := range []downloading{stream.XHTTPSettings, stream.SplitHTTPSettings} {
		for _, d := range []dialing{s.DownloadSettings, s.Extra.DownloadSettings} {
			ways = append(ways, dialRef{"downloadSettings.sockopt.dialerProxy", d.Sockopt.DialerProxy})
		}
	}
	return slices.DeleteFunc(ways, func(w dialRef) bool { return w.tag == "" })
}

// circleFindings are outbounds that dial through themselves.
func circularDialing(s state.State) []*fault.Fault {
	next := make(map[string][]dialRef, len(s.Outbounds))
	for _, o := range s.Outbounds {
		next[o.Tag] = dialRefs(o)
	}
	var found []*fault.Fault
	for _, o := range s.Outbounds {
		for _, first := range next[o.Tag] {
			if circle := circleFrom(o.Tag, first, next); circle != nil {
				found = append(found, fault.InText(o.Tag, "outbound %q: %s leads in a circle (%s): nothing would get out", o.Tag, first.member, strings.Join(circle, " > ")))
			}
		}
	}
	return found
}

// circleFrom is the path from an outbound back to itself that begins with a way of its,
// nil where there is none.
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
