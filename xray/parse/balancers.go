package parse

import (
	"encoding/json"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// checkTogether finds what is wrong between the parts of a state: Xray takes
// all of it without a word.
func checkTogether(s state.State) error {
	if err := state.CheckPorts(s, false); err != nil {
		return err
	}
	return checkBalancers(s)
}

// checkBalancers finds a rule to a balancer that does not exist.
func checkBalancers(s state.State) error {
	if s.Routing == nil {
		return nil
	}
	var routing state.Routes
	if err := json.Unmarshal(s.Routing, &routing); err != nil {
		return fault.InText("", "read routing: %v", err)
	}
	balancers := map[string]bool{}
	for _, balancer := range routing.Balancers {
		balancers[balancer.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.BalancerTag != "" && !balancers[rule.BalancerTag] {
			return fault.InText(rule.BalancerTag, "routing.rules[%d] names balancer %q, which does not exist: its traffic would be dropped", i, rule.BalancerTag)
		}
	}
	return nil
}
