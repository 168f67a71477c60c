package xray

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// regexpPrefix begins a user of a routing rule that is an expression.
const regexpPrefix = "regexp:"

// nobody stands for users that no inbound has: a rule without users would hold
// for everybody.
const nobody = "nobody"

// translateUsers returns the routing with the names that Core gave its clients
// replaced by those that they have inside the worker, one for each inbound.
func translateUsers(s State) (json.RawMessage, error) {
	var routing struct {
		Rules []map[string]json.RawMessage `json:"rules"`
	}
	if s.Routing == nil {
		return nil, nil
	}
	if err := json.Unmarshal(s.Routing, &routing); err != nil {
		return nil, invalid("", "read routing: %v", err)
	}
	byUser := false
	for i, rule := range routing.Rules {
		raw, named := rule["user"]
		if !named {
			continue
		}
		names, err := userNames(raw)
		if err != nil {
			return nil, invalid("", "routing.rules[%d].user: %v", i, err)
		}
		if len(names) == 0 {
			continue // Xray takes it for no condition
		}
		emails, err := s.emailsOf(names)
		if err != nil {
			return nil, invalid("", "routing.rules[%d].user: %v", i, err)
		}
		if rule["user"], err = json.Marshal(emails); err != nil {
			return nil, invalid("", "routing.rules[%d].user: %v", i, err)
		}
		byUser = true
	}
	if !byUser {
		return s.Routing, nil
	}
	object, err := object(s.Routing)
	if err != nil {
		return nil, invalid("", "read routing: %v", err)
	}
	if object["rules"], err = json.Marshal(routing.Rules); err != nil {
		return nil, invalid("", "read routing: %v", err)
	}
	return canonical(object)
}

// userNames reads a list, or text with commas, as Xray does.
func userNames(raw json.RawMessage) ([]string, error) {
	var names []string
	var text string
	if string(raw) == "null" {
		return nil, nil
	}
	if json.Unmarshal(raw, &text) == nil {
		return strings.Split(text, ","), nil
	}
	return names, json.Unmarshal(raw, &names)
}

// emailsOf returns the workers' names of the clients that Core, or their account,
// knows by one of the names, or whose name one of the expressions matches.
func (s State) emailsOf(names []string) ([]string, error) {
	var expressions []*regexp.Regexp
	for _, name := range names {
		if pattern, is := strings.CutPrefix(name, regexpPrefix); is {
			expression, err := regexp.Compile(pattern)
			if err != nil {
				return nil, err
			}
			expressions = append(expressions, expression)
		}
	}
	emails := []string{}
	for _, tag := range s.Tags() {
		for _, c := range s.Inbounds[tag].Clients {
			for _, name := range []string{c.Name, c.User} {
				matches := func(e *regexp.Regexp) bool { return e.MatchString(name) }
				if name != "" && (slices.Contains(names, name) || slices.ContainsFunc(expressions, matches)) {
					emails = append(emails, c.Email)
					break
				}
			}
		}
	}
	if len(emails) == 0 {
		emails = append(emails, nobody)
	}
	if slices.Contains(names, "") {
		emails = append(emails, "") // which Xray passes over, and userFindings tell of
	}
	return emails, nil
}

// userFindings are empty names among the users of rules: Xray passes over them.
func userFindings(s State) []*InvalidError {
	var found []*InvalidError
	for i, users := range s.ruleUsers() {
		if slices.Contains(users, "") {
			found = append(found, invalid("", "routing.rules[%d].user has an empty name: it is nobody's, leave it out", i))
		}
	}
	return found
}

// userWarnings tell of rules whose list of users is empty: they hold for everybody.
func userWarnings(s State) []string {
	var warnings []string
	for i, users := range s.ruleUsers() {
		if users != nil && len(users) == 0 {
			warnings = append(warnings, fmt.Sprintf("routing.rules[%d].user is empty: the rule holds for everybody", i))
		}
	}
	return warnings
}

// ruleUsers are the users of each rule, nil where a rule names none.
func (s State) ruleUsers() [][]string {
	var routing struct {
		Rules []struct {
			User json.RawMessage `json:"user"`
		} `json:"rules"`
	}
	_ = json.Unmarshal(s.Routing, &routing) // Parse has read it
	all := make([][]string, len(routing.Rules))
	for i, rule := range routing.Rules {
		if rule.User != nil {
			all[i], _ = userNames(rule.User)
		}
	}
	return all
}
