package parse

import (
	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// checkBalancers returns a fault where a rule names a balancer that does not exist.
func checkBalancers(s state.State) error {
	routing := s.RoutingView()
	balancers := map[string]bool{}
	for _, balancer := range routing.Balancers {
		balancers[balancer.Tag] = true
	}
	for i, rule := range routing.Rules {
		if rule.BalancerTag != "" && !balancers[rule.BalancerTag] {
			return fault.InText(rule.BalancerTag, "routing.rules[%d] names balancer %q, which does not exist, so its traffic would be dropped: add the balancer or correct the name", i, rule.BalancerTag)
		}
	}
	return nil
}
