package parse

import (
	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

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
