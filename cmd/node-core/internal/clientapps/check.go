package clientapps

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/cmd/node-core/internal/share"
	"nodeagent/coreapi"
)

// CheckTemplate refuses a template that can't be filled, or whose client would not start with it. It
// fills the template for a subscription that nobody has, and for one that reaches nothing.
func CheckTemplate(t coreapi.ClientTemplate) error {
	if err := checkName(t.Name, t.Note); err != nil {
		return err
	}
	if err := CheckFile(t.Name); err != nil {
		return err
	}
	if err := checkAgents(t.Agents); err != nil {
		return err
	}
	c, err := Compile(t)
	if err != nil {
		return err
	}
	for _, ways := range [][]nodeconfig.Way{sampleWays(), nil} {
		filled, err := c.Render(ways)
		if err != nil {
			return fmt.Errorf("fill the template for a sample: %w", err)
		}
		if err := c.checkFilled(filled); err != nil {
			return err
		}
	}
	return nil
}

// sampleWays has an inbound that every client has words for, and names that try to be more than
// names.
func sampleWays() []nodeconfig.Way {
	var ways []nodeconfig.Way
	for _, name := range []string{"DE 1", "NL: \"x\" # {proxies}", "true", "☃"} {
		ways = append(ways, nodeconfig.Way{Endpoint: &share.Endpoint{
			Name: name, Protocol: "trojan", Host: "node.example", Port: 443, Account: share.Account{Password: "p"},
			Stream: share.Stream{Network: "tcp", Security: "tls", ServerName: "node.example"},
		}})
	}
	return ways
}

// checkFilled refuses names in groups and rules that nothing has.
func (t *Template) checkFilled(filled []byte) error {
	var config map[string]any
	var err error
	if t.form.extension == "yaml" {
		err = yaml.Unmarshal(filled, &config)
	} else {
		err = json.Unmarshal(filled, &config)
	}
	if err != nil {
		return fmt.Errorf("the filled template can't be read: %w", err)
	}
	known := map[string]bool{}
	for _, name := range t.form.own {
		known[name] = true
	}
	for _, list := range t.form.lists {
		items, is := config[list].([]any)
		if !is && config[list] != nil {
			return fmt.Errorf("line %d: %s is no list", lineOf(t.Body, list), list)
		}
		for _, item := range items {
			object, _ := item.(map[string]any)
			name, _ := object[t.form.label].(string)
			switch {
			case name == "" && (t.form.name == "mihomo" || object == nil):
				return fmt.Errorf("line %d: an item of %s has no %s", lineOf(t.Body, list), list, t.form.label)
			case name != "" && known[name]:
				return fmt.Errorf("line %d: two items have the %s %q", lineOf(t.Body, name), t.form.label, name)
			}
			known[name] = true
		}
	}
	for _, used := range t.used(config) {
		if !known[used] {
			return fmt.Errorf("line %d: %q is neither a proxy nor a group", lineOf(t.Body, used), used)
		}
	}
	return nil
}

// used returns the names of proxies and groups to which groups, rules and DNS servers refer.
func (t *Template) used(config map[string]any) []string {
	var names []string
	each := func(list any, visit func(map[string]any)) {
		items, _ := list.([]any)
		for _, item := range items {
			if object, is := item.(map[string]any); is {
				visit(object)
			}
		}
	}
	also := func(values ...any) {
		for _, value := range values {
			switch value := value.(type) {
			case string:
				names = append(names, value)
			case []any:
				for _, one := range value {
					if text, is := one.(string); is {
						names = append(names, text)
					}
				}
			}
		}
	}
	switch t.form.name {
	case "mihomo":
		each(config["proxy-groups"], func(group map[string]any) { also(group["proxies"]) })
		rules, _ := config["rules"].([]any)
		for _, rule := range rules {
			if text, is := rule.(string); is {
				if target := targetOf(text); target != "" {
					names = append(names, target)
				}
			}
		}
	case "sing-box":
		each(config["outbounds"], func(o map[string]any) { also(o["outbounds"], o["default"], o["detour"]) })
		route, _ := config["route"].(map[string]any)
		also(route["final"])
		each(route["rules"], func(rule map[string]any) { also(rule["outbound"]) })
		dns, _ := config["dns"].(map[string]any)
		each(dns["servers"], func(server map[string]any) { also(server["detour"]) })
	case "xray":
		routing, _ := config["routing"].(map[string]any)
		each(routing["rules"], func(rule map[string]any) { also(rule["outboundTag"]) })
	}
	return names
}

// targetOf returns the proxy or group of a rule of mihomo, such as DOMAIN,example.com,Proxy; empty
// where the rule has another form.
func targetOf(rule string) string {
	if i := strings.LastIndex(rule, "),"); i >= 0 { // AND,((...),(...)),Proxy
		rule = "LOGIC,," + rule[i+2:]
	}
	fields := strings.Split(rule, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	switch {
	case fields[0] == "SUB-RULE":
		return ""
	case fields[0] == "MATCH" && len(fields) > 1:
		return fields[1]
	case len(fields) > 2:
		return fields[2]
	}
	return ""
}

// Bounds of templates and rules.
const (
	maxName   = 64
	maxNote   = 1000
	maxAgents = 50
	maxWord   = 100 // bytes of a word, or of a value of a header's name
)

func checkName(name, note string) error {
	switch {
	case name == "" || len(name) > maxName || strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && c != '_' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	}):
		return fmt.Errorf("the name %q: want 1 to %d letters, digits, dots, hyphens and underscores", name, maxName)
	case slices.Contains([]string{"page", "plain", "links"}, name):
		return fmt.Errorf("the name %q means another form of the links", name)
	case len(note) > maxNote:
		return fmt.Errorf("the note has %d bytes: want at most %d", len(note), maxNote)
	}
	return nil
}

// CheckFile refuses the name of a template that can't name a file of an export: a hidden file, a folder,
// or one of the pages.
func CheckFile(name string) error {
	switch {
	case strings.HasPrefix(name, "."):
		return fmt.Errorf("the name %q begins with a dot, as hidden files do: the files of an export have the names of templates; take another name", name)
	case strings.HasPrefix(name, "page."):
		return fmt.Errorf("the name %q begins with \"page.\", as the pages of an export do; take another name", name)
	}
	return nil
}

func checkAgents(words []string) error {
	if len(words) > maxAgents {
		return fmt.Errorf("there are %d words of User-Agents: want at most %d", len(words), maxAgents)
	}
	for _, word := range words {
		if strings.TrimSpace(word) == "" || len(word) > maxWord {
			return errors.New("a word of User-Agents is empty, or too long")
		}
	}
	return nil
}
