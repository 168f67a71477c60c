package share

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML returns an object, such as one of MihomoProxy, as a tree of YAML. The texts in it may be any: yaml itself writes
// one of several lines as a block, and does not read that again where it begins with a tab, so that one strange
// password would spoil a whole file. Keys are sorted.
func YAML(object map[string]any) (*yaml.Node, error) { return nodeOf(object) }

// YAMLText returns a node that is a text whatever it looks like.
func YAMLText(value string) *yaml.Node {
	var n yaml.Node
	n.SetString(value)
	if strings.ContainsAny(value, "\r\n\t") {
		n.Style = yaml.DoubleQuotedStyle
	}
	return &n
}

func nodeOf(value any) (*yaml.Node, error) {
	switch value := value.(type) {
	case string:
		return YAMLText(value), nil
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range slices.Sorted(maps.Keys(value)) {
			child, err := nodeOf(value[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			n.Content = append(n.Content, YAMLText(key), child)
		}
		if len(value) == 0 {
			n.Style = yaml.FlowStyle // {}
		}
		return n, nil
	}
	if list := reflect.ValueOf(value); list.Kind() == reflect.Slice {
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range list.Len() {
			child, err := nodeOf(list.Index(i).Interface())
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if list.Len() == 0 {
			n.Style = yaml.FlowStyle // []
		}
		return n, nil
	}
	var n yaml.Node
	err := n.Encode(value)
	return &n, err
}
