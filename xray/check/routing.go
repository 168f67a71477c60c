package check

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// weighed is the part of Xray's routing object that says how it chooses.
type balancerStrategies struct {
	DomainStrategy string `json:"domainStrategy"`
	Balancers      []struct {
		Tag      string `json:"tag"`
		Strategy struct {
			Type     string `json:"type"`
			Settings struct {
				Costs []struct {
					Regexp bool   `json:"regexp"`
					Match  string `json:"match"`
				} `json:"costs"`
			} `json:"settings"`
		} `json:"strategy"`
	} `json:"balancers"`
}

// routingFindings are what Xray passes over in how the routing chooses: a strategy for
// domains that is none, a balancer that asks an observatory which is not there, costs
// whose expression holds for nobody.
func routingFindings(s state.State) []*fault.Fault {
	if s.Routing == nil {
		return nil
	}
	var routing balancerStrategies
	_ = json.Unmarshal(s.Routing, &routing) // what can't be read the worker names
	var found []*fault.Fault
	if strategy := routing.DomainStrategy; !slices.Contains([]string{"", "asis", "ipifnonmatch", "ipondemand"}, strings.ToLower(strategy)) {
		found = append(found, fault.InText("", "routing.domainStrategy is %q: Xray would take it for AsIs; want AsIs, IPIfNonMatch or IPOnDemand", strategy))
	}
	observed := s.Base.Observatory != nil || s.Base.BurstObservatory != nil
	for _, b := range routing.Balancers {
		kind := strings.ToLower(b.Strategy.Type)
		if (kind == "leastping" || kind == "leastload") && !observed {
			found = append(found, fault.InText(b.Tag, "balancer %q: its strategy %s asks an observatory, and there is none: it would choose no outbound; add observatory or burstObservatory", b.Tag, b.Strategy.Type))
		}
		if kind != "leastload" {
			continue
		}
		for i, cost := range b.Strategy.Settings.Costs {
			if _, err := regexp.Compile(cost.Match); cost.Regexp && err != nil {
				found = append(found, fault.InText(b.Tag, "balancer %q: strategy.settings.costs[%d].match: %v; Xray would pass over it", b.Tag, i, err))
			}
		}
	}
	return found
}
