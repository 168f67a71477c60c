package check

import (
	"fmt"
	"slices"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// userFindings are empty names among the users of rules: Xray passes over them.
func userFindings(s state.State) []*fault.Fault {
	var found []*fault.Fault
	for i, users := range ruleUsers(s) {
		if slices.Contains(users, "") {
			found = append(found, fault.InText("", "routing.rules[%d].user has an empty name: it is nobody's, leave it out", i))
		}
	}
	return found
}

// userWarnings tell of rules whose list of users is empty: they hold for everybody.
func userWarnings(s state.State) []string {
	var warnings []string
	for i, users := range ruleUsers(s) {
		if users != nil && len(users) == 0 {
			warnings = append(warnings, fmt.Sprintf("routing.rules[%d].user is empty: the rule holds for everybody", i))
		}
	}
	return warnings
}

// ruleUsers are the users of each rule, nil where a rule names none.
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
