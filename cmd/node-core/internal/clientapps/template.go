package clientapps

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/share"
	"nodeagent/coreapi"
)

// Bounds of what an operator stores.
const (
	maxBody   = 256 << 10 // bytes of a template
	maxDepth  = 50        // lists and objects in each other
	maxGroups = 500       // items {names} of a template: each is as long as the list of proxies
)

// Template is a configuration that is filled for subscriptions. It does not change.
type Template struct {
	coreapi.ClientTemplate
	form form
	tree any // of map[string]any, []any and values; or *yaml.Node
	// taken are names that no proxy may have.
	taken    map[string]bool
	patterns map[string]*regexp.Regexp // of {names REGEXP}, by the expression
}

// form is whose configuration a template is.
type form struct {
	name        string
	contentType string
	extension   string
	// proxy writes an endpoint in the words of the client.
	proxy func(share.Endpoint) (map[string]any, error)
	lists []string // members whose items have names that groups and rules use
	label string   // the member that has the name of a proxy or a group
	own   []string // names that the client itself gives a meaning
}

var forms = []form{
	{"mihomo", "text/yaml; charset=utf-8", "yaml", share.MihomoProxy, []string{"proxies", "proxy-groups"}, "name", []string{"DIRECT", "REJECT", "REJECT-DROP", "PASS", "COMPATIBLE", "GLOBAL"}},
	{"sing-box", "application/json; charset=utf-8", "json", share.SingBoxOutbound, []string{"outbounds", "endpoints"}, "tag", nil},
	{"xray", "application/json; charset=utf-8", "json", share.XrayOutbound, []string{"outbounds"}, "tag", nil},
}

// Forms are the names of the forms of templates.
func Forms() []string {
	names := make([]string, len(forms))
	for i, f := range forms {
		names[i] = f.name
	}
	return names
}

// ContentType is that of the answer, and Extension that of a file with it.
func (t *Template) ContentType() string { return t.form.contentType }

// Extension is how the name of a file with the answer ends, without a dot.
func (t *Template) Extension() string { return t.form.extension }

const (
	proxiesItem = "{proxies}"
	namesItem   = "{names"
)

// Compile reads a template. An error says in which line it is wrong.
func Compile(t coreapi.ClientTemplate) (*Template, error) {
	i := slices.IndexFunc(forms, func(f form) bool { return f.name == t.Form })
	switch {
	case i < 0:
		return nil, fmt.Errorf("form %q is unknown: want one of %s", t.Form, strings.Join(Forms(), ", "))
	case len(t.Body) > maxBody:
		return nil, fmt.Errorf("the template has %d bytes: want at most %d", len(t.Body), maxBody)
	}
	c := &Template{ClientTemplate: t, form: forms[i], taken: map[string]bool{"direct": true}, patterns: map[string]*regexp.Regexp{}}
	var err error
	if c.form.extension == "yaml" {
		c.tree, err = readYAML(t.Body)
	} else {
		c.tree, err = readJSON(t.Body)
	}
	if err != nil {
		return nil, err
	}
	if err := c.readItems(); err != nil {
		return nil, err
	}
	return c, nil
}

func readYAML(body string) (any, error) {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(body), &document); err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("read the template: it is no mapping of YAML")
	}
	return document.Content[0], depthOfNode(document.Content[0], 0)
}

// depthOfNode refuses what is nested too deep, and references: they would let a short text stand for
// a long one.
func depthOfNode(n *yaml.Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: lists and mappings are nested deeper than %d", n.Line, maxDepth)
	}
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: *%s is a reference; write in its place what it stands for", n.Line, n.Value)
	}
	for _, child := range n.Content {
		if err := depthOfNode(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func readJSON(body string) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var tree map[string]any
	if err := decoder.Decode(&tree); err != nil {
		at := decoder.InputOffset()
		if wrong, is := errors.AsType[*json.SyntaxError](err); is {
			at = wrong.Offset
		}
		return nil, fmt.Errorf("read the template: line %d: %w", 1+strings.Count(body[:min(int(at), len(body))], "\n"), err)
	}
	if decoder.More() {
		return nil, fmt.Errorf("read the template: line %d: there is more behind the object", 1+strings.Count(body[:decoder.InputOffset()], "\n"))
	}
	return tree, depthOf(tree, 0)
}

func depthOf(value any, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("lists and objects are nested deeper than %d", maxDepth)
	}
	switch value := value.(type) {
	case map[string]any:
		for _, child := range value {
			if err := depthOf(child, depth+1); err != nil {
				return err
			}
		}
	case []any:
		for _, child := range value {
			if err := depthOf(child, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// readItems finds the items that stand for proxies and names, and the names that the template has
// itself.
func (t *Template) readItems() error {
	for _, name := range t.form.own {
		t.taken[name] = true
	}
	plain, err := t.plain()
	if err != nil {
		return err
	}
	for _, list := range t.form.lists {
		items, _ := plain[list].([]any)
		for _, item := range items {
			if object, is := item.(map[string]any); is {
				if name, is := object[t.form.label].(string); is {
					t.taken[name] = true
				}
			}
		}
	}
	var proxies, names int
	for text := range textsOf(plain) {
		switch {
		case text == proxiesItem:
			proxies++
		case strings.HasPrefix(text, namesItem) && strings.HasSuffix(text, "}"):
			expression := expressionOf(text)
			if t.patterns[expression], err = regexp.Compile(expression); err != nil {
				return fmt.Errorf("line %d: %q: %w", lineOf(t.Body, text), text, err)
			}
			names++
		}
	}
	switch {
	case proxies != 1:
		return fmt.Errorf("the template has %d items %s: want one, in the list %s", proxies, proxiesItem, t.form.lists[0])
	case names > maxGroups:
		return fmt.Errorf("the template has %d items %s}: want at most %d", names, namesItem, maxGroups)
	}
	return nil
}

// plain returns the template as objects, lists and values.
func (t *Template) plain() (map[string]any, error) {
	if node, is := t.tree.(*yaml.Node); is {
		var plain map[string]any
		if err := node.Decode(&plain); err != nil {
			return nil, fmt.Errorf("read the template: %w", err)
		}
		return plain, nil
	}
	return t.tree.(map[string]any), nil
}

// expressionOf returns the regular expression of an item {names REGEXP}, which is empty for all names.
func expressionOf(item string) string {
	return strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(item, namesItem), "}"))
}

// Render fills the template with the ways that its client has words for.
func (t *Template) Render(ways []nodeconfig.Way) ([]byte, error) {
	f := filling{template: t}
	f.proxies, f.names = t.proxies(ways)
	if node, is := t.tree.(*yaml.Node); is {
		filled, err := f.node(node)
		if err != nil {
			return nil, err
		}
		var out bytes.Buffer
		encoder := yaml.NewEncoder(&out)
		encoder.SetIndent(2)
		err = encoder.Encode(filled)
		return out.Bytes(), errors.Join(err, encoder.Close())
	}
	return json.MarshalIndent(f.value(t.tree), "", "  ")
}

// proxies writes the endpoints in the words of the client, and leaves out those that it has no words
// for. Each has a name of its own, which is none of the template's.
func (t *Template) proxies(ways []nodeconfig.Way) (list []map[string]any, names []string) {
	taken := map[string]bool{}
	for _, w := range ways {
		if w.Endpoint == nil {
			continue
		}
		e := *w.Endpoint
		for n := 2; taken[e.Name] || t.taken[e.Name]; n++ {
			e.Name = fmt.Sprintf("%s %d", w.Endpoint.Name, n)
		}
		proxy, err := t.form.proxy(e)
		if err != nil {
			continue
		}
		taken[e.Name] = true
		list, names = append(list, proxy), append(names, e.Name)
	}
	return list, names
}

// lineOf returns the first line of a text that has a word.
func lineOf(text, word string) int {
	before, _, _ := strings.Cut(text, word)
	return 1 + strings.Count(before, "\n")
}
