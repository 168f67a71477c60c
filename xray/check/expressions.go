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

// checkExpressions finds regular expressions that don't compile. Xray passes over
// those of domains without a word and panics over those of attrs.
func checkExpressions(s state.State) error {
	for name, raw := range map[string]json.RawMessage{"routing": s.Routing, "dns": s.DNS} {
		var tree any
		if raw == nil || json.Unmarshal(raw, &tree) != nil {
			continue
		}
		if err := compileAll(name, tree, false); err != nil {
			return fault.InText("", "%v", err).Of(fault.Kind(name)) // both are kinds of parts
		}
	}
	return nil
}

// compileAll walks through the tree. In attrs every text is an expression,
// elsewhere those are that say so.
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
			if err := compileAll(place+"."+name, name, false); err != nil { // dns.hosts has them as names
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

// expressionOf is what Xray compiles of a domain in a rule, where it is an expression.
func expressionOf(domain string) (pattern string, is bool) {
	if part, dotless := strings.CutPrefix(domain, "dotless:"); dotless {
		return "^[^.]*" + part + "[^.]*$", true // common/geodata/rule_parser.go:240
	}
	return strings.CutPrefix(domain, parse.RegexpPrefix)
}

// listOf is Xray's list that is written as one text with commas.
func listOf(text string) []any {
	var list []any
	for part := range strings.SplitSeq(text, ",") {
		list = append(list, part)
	}
	return list
}
