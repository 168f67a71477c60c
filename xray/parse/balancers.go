package parse

import (
	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// checkTogether finds faults between the parts of a state that Xray accepts silently.
func checkTogether(s state.State) error {
	if err := state.CheckPorts(s, false); err != nil {
		return err
	}
	return checkBalancers(s)
}

// checkBalancers finds a rule to a balancer that does not exist.
func checkBalancers(s state.State) error {
	routing := s.RoutingView()
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
