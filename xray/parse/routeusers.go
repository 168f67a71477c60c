package parse

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// RegexpPrefix is the prefix of a rule's user, and of a domain, that is a regular expression.
const RegexpPrefix = "regexp:"

// noUser replaces the users of a rule where no client has one of their names. Without users
// the rule would match every client.
const noUser = "nobody"

// WithUsers returns the state with routing, where the users' names from Core are replaced by
// the worker's names, one for each inbound on which the state has the client. Call it again
// after a change of the state's clients.
func WithUsers(s state.State, routing json.RawMessage) (state.State, error) {
	translated, err := translateUsers(s, routing)
	if err != nil {
		return s, err
	}
	with, err := s.WithRouting(translated)
	if err != nil {
		return s, fault.InText("", "read routing: %v", err)
	}
	return with, nil
}

func translateUsers(s state.State, object json.RawMessage) (json.RawMessage, error) {
	var routing struct {
		Rules []map[string]json.RawMessage `json:"rules"`
	}
	if object == nil {
		return nil, nil
	}
	if err := json.Unmarshal(object, &routing); err != nil {
		return nil, fault.InText("", "read routing: %v", err)
	}
	byUser := false
	for i, rule := range routing.Rules {
		raw, named := rule["user"]
		if !named {
			continue
		}
		names, err := rawjson.UserNames(raw)
		if err != nil {
			return nil, fault.InText("", "routing.rules[%d].user: %v", i, err)
		}
		if len(names) == 0 {
			continue // for Xray the rule then has no condition on users
		}
		emails, err := emailsOf(s, names)
		if err != nil {
			return nil, fault.InText("", "routing.rules[%d].user: %v", i, err)
		}
		if rule["user"], err = json.Marshal(emails); err != nil {
			return nil, fault.InText("", "routing.rules[%d].user: %v", i, err)
		}
		byUser = true
	}
	if !byUser {
		return object, nil
	}
	members, err := rawjson.Object(object)
	if err != nil {
		return nil, fault.InText("", "read routing: %v", err)
	}
	if members["rules"], err = json.Marshal(routing.Rules); err != nil {
		return nil, fault.InText("", "read routing: %v", err)
	}
	return rawjson.Canonical(members)
}

// emailsOf returns the worker's names of the clients whose email from Core, or whose account's
// user, is one of the names or matches one of the regular expressions among them.
func emailsOf(s state.State, names []string) ([]string, error) {
	var expressions []*regexp.Regexp
	for _, name := range names {
		if pattern, is := strings.CutPrefix(name, RegexpPrefix); is {
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
		emails = append(emails, noUser)
	}
	if slices.Contains(names, "") {
		emails = append(emails, "") // Xray ignores it; package check refuses it
	}
	return emails, nil
}
