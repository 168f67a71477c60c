package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// networkFindings returns a fault for each list of networks with an unknown one. Xray silently
// ignores unknown networks: a rule without a known one matches nothing, an inbound without a
// known one listens on nothing.
func networkFindings(s state.State) []*fault.Fault {
	var found []*fault.Fault
	for i, rule := range s.RoutingView().Rules {
		if err := checkNetworks(rule.Network); err != nil {
			found = append(found, fault.InText("", "routing.rules[%d].network: %v", i, err))
		}
	}
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		if state.Protocols[in.Protocol].Listens != state.OnChosenNetworks {
			continue
		}
		err := checkNetworks(in.NetworkSetting())
		if err == nil && len(in.ChosenNetworks()) == 0 {
			err = errors.New("it has neither tcp nor udp, so the inbound would listen on nothing: add one of them")
		}
		if err != nil {
			found = append(found, fault.InText(tag, "inbound %q: settings.network: %v", tag, err).Of(fault.Inbound))
		}
	}
	return found
}

// checkNetworks returns an error for an unknown network in the list. Xray accepts capital
// letters, and no white space.
func checkNetworks(list json.RawMessage) error {
	for _, network := range rawjson.StringList(string(list)) {
		if !slices.Contains([]string{"tcp", "udp", state.NetworkUnix}, strings.ToLower(network)) {
			return fmt.Errorf("%q is not a network, and Xray would ignore it: want tcp, udp or unix, without spaces", network)
		}
	}
	return nil
}
