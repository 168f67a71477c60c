package coreapi

import (
	"context"
	"net/http"
)

// ClientTemplate is the configuration that a family of client applications gets from a subscription's
// own link, with placeholders for what the subscription reaches.
type ClientTemplate struct {
	Name string `json:"name"`
	Note string `json:"note"`
	Form string `json:"form" doc:"Whose configuration it is: mihomo, sing-box or xray."`
	// Agents are words; an application is of the family if its User-Agent has one of them, in any case
	// of letters. The longest word wins over those of other templates.
	Agents  []string `json:"agents" nullable:"false" doc:"Words of which the family's User-Agent has one, in any case of letters."`
	Body    string   `json:"body" doc:"YAML for mihomo, JSON for the others. A list item {proxies} stands for the proxies, and {names} or {names REGEXP} for their names."`
	BuiltIn bool     `json:"builtIn" doc:"It came with node-core. A template with its name replaces it."`
}

// ClientRule says what applications get beside the form: which ways are hidden from them, and further
// headers.
type ClientRule struct {
	Name string `json:"name"`
	Note string `json:"note"`
	// Agents are words as in ClientTemplate; none for every application.
	Agents []string `json:"agents" nullable:"false" doc:"Words of which the User-Agent has one, in any case of letters; none for every application."`
	// Below is a version, such as 2.1: the rule is for lower ones, which stand behind the word and a slash.
	Below string `json:"below" doc:"Only for versions below this one, such as 2.1, which stand behind the word in the User-Agent; empty for all."`
	Form  string `json:"form" doc:"The form or the template that these applications get; empty for that of their family."`
	// Hide are ways that are left out, such as hysteria or vless+xhttp: protocol, transport, security.
	Hide    []string          `json:"hide" nullable:"false" doc:"Ways that are left out: words of protocol, transport and security, with a plus between those that come together, such as vless+xhttp."`
	Headers map[string]string `json:"headers" nullable:"false" doc:"Further headers of the answer. {title}, {support}, {user}, {used}, {limit}, {left} and {expires} are replaced; what is not ASCII is sent in base64."`
	BuiltIn bool              `json:"builtIn" doc:"It came with node-core. A rule with its name replaces it."`
}

// ClientTemplates returns the templates, with the built-in ones that are not replaced.
func (c *Client) ClientTemplates(ctx context.Context) ([]ClientTemplate, error) {
	return call[[]ClientTemplate](ctx, c, http.MethodGet, "/client-templates", nil, nil)
}

// ClientTemplate returns a template.
func (c *Client) ClientTemplate(ctx context.Context, name string) (ClientTemplate, error) {
	return call[ClientTemplate](ctx, c, http.MethodGet, "/client-templates/"+segment(name), nil, nil)
}

// SetClientTemplate adds a template, or replaces the one with its name.
func (c *Client) SetClientTemplate(ctx context.Context, t ClientTemplate) (ClientTemplate, error) {
	return call[ClientTemplate](ctx, c, http.MethodPut, "/client-templates/"+segment(t.Name), nil, t)
}

// RemoveClientTemplate removes a template. A built-in one that it replaced is back then.
func (c *Client) RemoveClientTemplate(ctx context.Context, name string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/client-templates/"+segment(name), nil, nil)
}

// ClientRules returns the rules, with the built-in ones that are not replaced.
func (c *Client) ClientRules(ctx context.Context) ([]ClientRule, error) {
	return call[[]ClientRule](ctx, c, http.MethodGet, "/client-rules", nil, nil)
}

// ClientRule returns a rule.
func (c *Client) ClientRule(ctx context.Context, name string) (ClientRule, error) {
	return call[ClientRule](ctx, c, http.MethodGet, "/client-rules/"+segment(name), nil, nil)
}

// SetClientRule adds a rule, or replaces the one with its name.
func (c *Client) SetClientRule(ctx context.Context, r ClientRule) (ClientRule, error) {
	return call[ClientRule](ctx, c, http.MethodPut, "/client-rules/"+segment(r.Name), nil, r)
}

// RemoveClientRule removes a rule. A built-in one that it replaced is back then.
func (c *Client) RemoveClientRule(ctx context.Context, name string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/client-rules/"+segment(name), nil, nil)
}
