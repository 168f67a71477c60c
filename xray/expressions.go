package xray

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// checkExpressions finds regular expressions that don't compile. Xray passes over
// those of domains without a word and panics over those of attrs.
func checkExpressions(s State) error {
	for name, raw := range map[string]json.RawMessage{"routing": s.Routing, "dns": s.DNS} {
		var tree any
		if raw == nil || json.Unmarshal(raw, &tree) != nil {
			continue
		}
		if err := compileAll(name, tree, false); err != nil {
			return invalid("", "%v", err)
		}
	}
	return nil
}

// compileAll walks through the tree. In attrs every text is an expression,
// elsewhere those are that say so.
func compileAll(place string, tree any, attrs bool) error {
	switch v := tree.(type) {
	case string:
		pattern, is := strings.CutPrefix(v, regexpPrefix)
		if !is && !attrs {
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
			if err := compileAll(place+"."+name, v[name], attrs || name == "attrs"); err != nil {
				return err
			}
		}
	}
	return nil
}
