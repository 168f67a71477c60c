package check

import (
	"fmt"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// userFindings returns a fault for each rule with an empty name among its users, which Xray
// ignores.
func userFindings(s state.State) []*fault.Fault {
	var found []*fault.Fault
	for i, users := range ruleUsers(s) {
		if slices.Contains(users, "") {
			found = append(found, fault.InText("", "routing.rules[%d].user has an empty name, which no client has: leave it out", i))
		}
	}
	return found
}

// userWarnings returns a warning for each rule whose list of users is empty: it matches the
// streams of all clients.
func userWarnings(s state.State) []string {
	var warnings []string
	for i, users := range ruleUsers(s) {
		if users != nil && len(users) == 0 {
			warnings = append(warnings, fmt.Sprintf("routing.rules[%d].user is empty, so the rule matches every client: leave user out, or name clients", i))
		}
	}
	return warnings
}

// ruleUsers returns the users of each rule, nil for a rule without the member.
func ruleUsers(s state.State) [][]string {
	routing := s.RoutingView()
	all := make([][]string, len(routing.Rules))
	for i, rule := range routing.Rules {
		if rule.User != nil {
			all[i], _ = rawjson.UserNames(rule.User)
		}
	}
	return all
}
