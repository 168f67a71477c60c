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

// networkFindings are networks that Xray does not know and takes without a word: a rule
// of one alone holds for nothing, an inbound of one alone listens on nothing.
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
			err = errors.New("it has neither tcp nor udp: the inbound would listen on nothing")
		}
		if err != nil {
			found = append(found, fault.InText(tag, "inbound %q: settings.network: %v", tag, err).Of(fault.Inbound))
		}
	}
	return found
}

// checkNetworks finds a network that is none in Xray's list of them. Xray takes capitals,
// and no white space.
func checkNetworks(list json.RawMessage) error {
	for _, network := range rawjson.StringList(string(list)) {
		if !slices.Contains([]string{"tcp", "udp", state.NetworkUnix}, strings.ToLower(network)) {
			return fmt.Errorf("%q is no network, and Xray would pass over it; want tcp, udp or unix", network)
		}
	}
	return nil
}
