package clientapps

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"nodeagent/coreapi"
)

//go:embed builtin
var builtin embed.FS

// builtinTemplates and builtinRules came with node-core.
var (
	builtinTemplates = mustRead("builtin/templates.json", func(t *coreapi.ClientTemplate) {
		extension := "json"
		if t.Form == "mihomo" {
			extension = "yaml"
		}
		body, err := builtin.ReadFile("builtin/" + t.Name + "." + extension)
		if err != nil {
			panic(err)
		}
		t.Body, t.BuiltIn = string(body), true
	})
	builtinRules = mustRead("builtin/rules.json", func(r *coreapi.ClientRule) {
		r.BuiltIn = true
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
	})
)

// mustRead reads a list that is a part of the program.
func mustRead[T any](file string, complete func(*T)) []T {
	raw, err := builtin.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var all []T
	if err := json.Unmarshal(raw, &all); err != nil {
		panic(err)
	}
	for i := range all {
		complete(&all[i])
	}
	return all
}

// Templates returns an operator's templates and the built-in ones that they do not replace.
func Templates(own []coreapi.ClientTemplate) []coreapi.ClientTemplate {
	return with(builtinTemplates, own, func(t coreapi.ClientTemplate) string { return t.Name })
}

// Rules returns an operator's rules and the built-in ones that they do not replace.
func Rules(own []coreapi.ClientRule) []coreapi.ClientRule {
	return with(builtinRules, own, func(r coreapi.ClientRule) string { return r.Name })
}

// with returns the own rows, and the others whose names they do not have, by their names.
func with[T any](others, own []T, name func(T) string) []T {
	all := slices.Clone(own)
	for _, other := range others {
		if !slices.ContainsFunc(own, func(t T) bool { return name(t) == name(other) }) {
			all = append(all, other)
		}
	}
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return all
}

// Apps are the templates and rules of one moment. They do not change.
type Apps struct {
	templates []*Template
	rules     []coreapi.ClientRule
}

// New makes Apps of an operator's templates and rules. A template that can't be read any more, after
// an upgrade for instance, is passed over with the built-in one in its place; the error names it.
func New(templates []coreapi.ClientTemplate, rules []coreapi.ClientRule) (*Apps, error) {
	a := &Apps{rules: Rules(rules)}
	var wrong error
	for _, t := range Templates(templates) {
		c, err := Compile(t)
		if err != nil {
			wrong = fmt.Errorf("template %s: %w", t.Name, err)
			for _, other := range builtinTemplates {
				if other.Name == t.Name {
					if c, err = Compile(other); err != nil {
						return nil, err
					}
				}
			}
		}
		if c != nil {
			a.templates = append(a.templates, c)
		}
	}
	return a, wrong
}

// Choice is what an application gets.
type Choice struct {
	// Template is nil for the list of links.
	Template *Template
	// Form is the name of the template, or links, or plain.
	Form    string
	Hide    []string
	headers []map[string]string
}

// The names of the lists of links.
const (
	Links = "links" // in base64
	Plain = "plain"
)

// Names are those of the forms that can be asked for.
func (a *Apps) Names() []string {
	names := make([]string, 0, len(a.templates)+2)
	for _, t := range a.templates {
		names = append(names, t.Name)
	}
	return append(names, Plain, Links)
}

// Choose returns what an application with a User-Agent gets that asks for a form, which may be empty;
// false for an unknown form.
func (a *Apps) Choose(userAgent, form string) (Choice, bool) {
	agent := strings.ToLower(userAgent)
	c := Choice{Form: form}
	for _, r := range a.rules {
		if !fits(r, agent) {
			continue
		}
		c.Hide = append(c.Hide, r.Hide...)
		c.headers = append(c.headers, r.Headers)
		if form == "" && r.Form != "" {
			c.Form = r.Form
		}
	}
	slices.Sort(c.Hide)
	c.Hide = slices.Compact(c.Hide)
	switch {
	case c.Form == Links || c.Form == Plain:
		return c, true
	case c.Form != "":
		// The family's own template, where it is of that form.
		if c.Template = a.family(agent, c.Form); c.Template == nil {
			c.Template = a.named(c.Form)
		}
		if c.Template == nil && form == "" { // a rule names a template that was removed
			c.Form = Links
			return c, true
		}
		if c.Template == nil {
			return c, false
		}
	default:
		c.Template = a.family(agent, "")
	}
	if c.Form = Links; c.Template != nil {
		c.Form = c.Template.Name
	}
	return c, true
}

func (a *Apps) named(name string) *Template {
	for _, t := range a.templates {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// family returns the template of a form, or of any, of whose words the User-Agent has the longest
// one; nil for none.
func (a *Apps) family(agent, form string) (found *Template) {
	longest := 0
	for _, t := range a.templates {
		if form != "" && t.form.name != form {
			continue
		}
		for _, word := range t.Agents {
			if len(word) > longest && strings.Contains(agent, strings.ToLower(word)) {
				found, longest = t, len(word)
			}
		}
	}
	return found
}

// SetHeaders sets the headers of the rules. Of two rules with one header, the last one by name counts.
func (c Choice) SetHeaders(to http.Header, values Values) {
	for _, headers := range c.headers {
		for name, value := range headers {
			to.Set(name, header(value, values))
		}
	}
}
