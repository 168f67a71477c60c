package check

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// leastLoadCosts is the part of the settings of the strategy leastLoad that has
// expressions.
type leastLoadCosts struct {
	Costs []struct {
		Regexp bool   `json:"regexp"`
		Match  string `json:"match"`
	} `json:"costs"`
}

// routingFindings returns a fault for each setting that Xray silently ignores when it chooses
// an outbound: an unknown domainStrategy, a balancer that needs an observatory where there is
// none, and costs whose regular expression does not compile.
func routingFindings(s state.State) []*fault.Fault {
	routing := s.RoutingView()
	var found []*fault.Fault
	if strategy := routing.DomainStrategy; !slices.Contains([]string{"", "asis", "ipifnonmatch", "ipondemand"}, strings.ToLower(strategy)) {
		found = append(found, fault.InText("", "routing.domainStrategy is %q, which Xray would treat as AsIs: want AsIs, IPIfNonMatch or IPOnDemand", strategy))
	}
	observed := s.Base.Observatory != nil || s.Base.BurstObservatory != nil
	for _, b := range routing.Balancers {
		kind := strings.ToLower(b.Strategy.Type)
		if (kind == "leastping" || kind == "leastload") && !observed {
			found = append(found, fault.InText(b.Tag, "balancer %q: its strategy %s needs an observatory and there is none, so it would choose no outbound: add observatory or burstObservatory", b.Tag, b.Strategy.Type))
		}
		if kind != "leastload" {
			continue
		}
		var settings leastLoadCosts
		_ = json.Unmarshal(b.Strategy.Settings, &settings) // xray-core refuses by name what is of another kind
		for i, cost := range settings.Costs {
			if _, err := regexp.Compile(cost.Match); cost.Regexp && err != nil {
				found = append(found, fault.InText(b.Tag, "balancer %q: strategy.settings.costs[%d].match: %v; Xray would ignore it: correct the expression", b.Tag, i, err))
			}
		}
	}
	return found
}
