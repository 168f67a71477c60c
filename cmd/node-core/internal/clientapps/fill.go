package clientapps

import (
	"fmt"
	"iter"
	"strings"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/share"
)

// filling puts proxies and names into a copy of a template's tree.
type filling struct {
	template *Template
	proxies  []map[string]any
	names    []string
}

// chosen returns the names for an item {names REGEXP}; is is false for any other text.
func (f *filling) chosen(item string) (names []string, is bool) {
	if !strings.HasPrefix(item, namesItem) || !strings.HasSuffix(item, "}") {
		return nil, false
	}
	pattern := f.template.patterns[expressionOf(item)]
	for _, name := range f.names {
		if pattern.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, true
}

// value fills a tree of JSON. A group of sing-box without members, which sing-box would not start
// with, becomes an outbound that blocks.
func (f *filling) value(value any) any {
	switch value := value.(type) {
	case map[string]any:
		filled := make(map[string]any, len(value))
		for name, child := range value {
			filled[name] = f.value(child)
		}
		if members, is := filled["outbounds"].([]any); is && len(members) == 0 && filled["tag"] != nil {
			return map[string]any{"type": "block", "tag": filled["tag"]}
		}
		return filled
	case []any:
		filled := make([]any, 0, len(value))
		for _, child := range value {
			text, _ := child.(string)
			if text == proxiesItem {
				for _, proxy := range f.proxies {
					filled = append(filled, proxy)
				}
				continue
			}
			if names, is := f.chosen(text); is {
				for _, name := range names {
					filled = append(filled, name)
				}
				continue
			}
			filled = append(filled, f.value(child))
		}
		return filled
	}
	return value
}

// node fills a tree of YAML. A list of names that would be empty has the proxy of mihomo that
// refuses everything: mihomo does not start with a group without proxies.
func (f *filling) node(n *yaml.Node) (*yaml.Node, error) {
	filled := *n
	filled.Content = make([]*yaml.Node, 0, len(n.Content))
	asked := false
	for _, child := range n.Content {
		if n.Kind != yaml.SequenceNode || child.Kind != yaml.ScalarNode {
			one, err := f.node(child)
			if err != nil {
				return nil, err
			}
			filled.Content = append(filled.Content, one)
			continue
		}
		if child.Value == proxiesItem {
			filled.Style = 0 // one proxy a line
			for _, proxy := range f.proxies {
				one, err := share.YAML(proxy)
				if err != nil {
					return nil, fmt.Errorf("write a proxy: %w", err)
				}
				filled.Content = append(filled.Content, one)
			}
			continue
		}
		names, is := f.chosen(child.Value)
		if !is {
			filled.Content = append(filled.Content, child)
			continue
		}
		asked = true
		for _, name := range names {
			filled.Content = append(filled.Content, share.YAMLText(name))
		}
	}
	if asked && len(filled.Content) == 0 {
		filled.Content = append(filled.Content, share.YAMLText("REJECT"))
	}
	if len(filled.Content) == 0 && n.Kind == yaml.SequenceNode {
		filled.Style = yaml.FlowStyle // []
	}
	return &filled, nil
}

// textsOf yields the texts that are items of lists.
func textsOf(value any) iter.Seq[string] {
	return func(yield func(string) bool) { yieldTexts(value, yield) }
}

func yieldTexts(value any, yield func(string) bool) bool {
	switch value := value.(type) {
	case map[string]any:
		for _, child := range value {
			if !yieldTexts(child, yield) {
				return false
			}
		}
	case []any:
		for _, child := range value {
			if item, is := child.(string); is {
				if !yield(item) {
					return false
				}
			} else if !yieldTexts(child, yield) {
				return false
			}
		}
	}
	return true
}
