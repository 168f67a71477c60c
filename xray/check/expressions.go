package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// checkExpressions returns a fault for a regular expression of the routing or of DNS that does
// not compile. Xray silently ignores such an expression for domains, and panics on one in
// attrs.
func checkExpressions(s state.State) error {
	for name, raw := range map[string]json.RawMessage{"routing": s.Routing, "dns": s.DNS} {
		var tree any
		if raw == nil || json.Unmarshal(raw, &tree) != nil {
			continue
		}
		if err := compileAll(name, tree, false); err != nil {
			return fault.InText("", "%v", err).Of(fault.Kind(name)) // "routing" and "dns" are kinds
		}
	}
	return nil
}

// compileAll compiles every regular expression in tree. In attrs every text is one; elsewhere
// a text is one where it has a prefix that says so.
func compileAll(place string, tree any, attrs bool) error {
	switch v := tree.(type) {
	case string:
		pattern, is := expressionOf(v)
		if attrs {
			pattern, is = v, true
		}
		if !is {
			return nil
		}
		if _, err := regexp.Compile(pattern); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	case []any:
		for i, item := range v {
			if err := compileAll(fmt.Sprintf("%s[%d]", place, i), item, attrs); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if err := compileAll(place+"."+name, name, false); err != nil { // dns.hosts has expressions as names of members
				return err
			}
			item := v[name]
			if text, is := item.(string); is && slices.Contains([]string{"domain", "domains"}, strings.ToLower(name)) {
				item = listOf(text)
			}
			if err := compileAll(place+"."+name, item, attrs || strings.EqualFold(name, "attrs")); err != nil {
				return err
			}
		}
	}
	return nil
}

// expressionOf returns the regular expression that Xray compiles for a domain of a rule, and
// false where the domain is none.
func expressionOf(domain string) (pattern string, is bool) {
	if part, dotless := strings.CutPrefix(domain, "dotless:"); dotless {
		return "^[^.]*" + part + "[^.]*$", true // common/geodata/rule_parser.go:240
	}
	return strings.CutPrefix(domain, parse.RegexpPrefix)
}

// listOf splits Xray's list that is written as one text with commas.
func listOf(text string) []any {
	var list []any
	for part := range strings.SplitSeq(text, ",") {
		list = append(list, part)
	}
	return list
}
