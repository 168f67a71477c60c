package check

import (
	"fmt"
	"slices"

	"nodeagent/xray/state"
)

// unusedMembers are warnings of what panels write and Xray passes over.
func unusedMembers(s state.State) []string {
	var warnings []string
	unused := func(place string, is bool) {
		if is {
			warnings = append(warnings, place+" is not used by Xray: leave it out")
		}
	}
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		v := in.View()
		unused(fmt.Sprintf("inbound %q: allocate", tag), v.Allocate != nil)
		unused(fmt.Sprintf("inbound %q: settings.encryption", tag), in.Protocol == "vless" && v.Settings.Encryption != nil)
		unused(fmt.Sprintf("inbound %q: settings.decryption", tag), in.Protocol == "trojan" && v.Settings.Decryption != nil)
		if slices.ContainsFunc(in.Clients, func(c state.Client) bool { return c.Reading.PrivateKey }) {
			warnings = append(warnings, fmt.Sprintf("inbound %q: a peer's privateKey is the client's alone, and the node does not keep it: leave it out", tag))
		}
	}
	routing := s.RoutingView()
	unused("routing.domainMatcher", routing.DomainMatcher != nil)
	for i, rule := range routing.Rules {
		unused(fmt.Sprintf("routing.rules[%d].domainMatcher", i), rule.DomainMatcher != nil)
	}
	return warnings
}
