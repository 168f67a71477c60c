package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"nodeagent/xray/members"
	"nodeagent/xray/state"
)

const noKeyLog = "masterKeyLog is not used: a node writes no file that its configuration names; leave it out"

// hasKeyLog reports whether an object has a masterKeyLog, which the worker leaves out
// (xray/worker/keylog.go).
func hasKeyLog(config json.RawMessage) bool {
	return bytes.Contains(bytes.ToLower(config), []byte(`"masterkeylog"`))
}

// unusedMembers returns warnings about members that panels write and Xray ignores: one for each
// inbound and outbound, and one for the clients of an inbound.
func unusedMembers(s state.State) []string {
	var warnings []string
	unused := func(place string, names []string) {
		switch len(names) {
		case 0:
		case 1:
			warnings = append(warnings, place+names[0]+" is not used by Xray: leave it out")
		default:
			warnings = append(warnings, place+strings.Join(names, ", ")+" are not used by Xray: leave them out")
		}
	}
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		unused(fmt.Sprintf("inbound %q: ", tag), members.Unused("inbound", in.Config))
		if hasKeyLog(in.Config) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: %s", tag, noKeyLog))
		}
		if in.AnyClient(func(r state.Reading) bool { return r.Panel }) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: its clients have members of a panel, such as enable, totalGB, expiryTime and limitIp, which are not used: every client in the list is served, without these limits; leave them out, and bound clients with limitIps and by leaving them out of the list", tag))
		}
		if in.AnyClient(func(r state.Reading) bool { return r.PrivateKey }) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: a peer's privateKey is only for the client, and the node does not keep it: leave it out", tag))
		}
	}
	for _, out := range s.Outbounds {
		if hasKeyLog(out.Config) {
			warnings = append(warnings, fmt.Sprintf("outbound %q: %s", out.Tag, noKeyLog))
		}
		unused(fmt.Sprintf("outbound %q: ", out.Tag), members.Unused("outbound", out.Config))
	}
	routing := s.RoutingView()
	var matchers []string
	if routing.DomainMatcher != nil {
		matchers = append(matchers, "routing.domainMatcher")
	}
	for i, rule := range routing.Rules {
		if rule.DomainMatcher != nil {
			matchers = append(matchers, fmt.Sprintf("routing.rules[%d].domainMatcher", i))
		}
	}
	unused("", matchers)
	return warnings
}
