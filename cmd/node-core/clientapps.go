package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/coreapi"
)

func newClientTemplateCmd(s *shared) *cobra.Command {
	return group("client-template", "Client templates: the configurations that families of client applications get from subscription links",
		"  node-core client-template show mihomo > mihomo.yaml\n  node-core client-template set mihomo --file mihomo.yaml\n  node-core client-template remove mihomo",
		newClientTemplateListCmd(s), newClientTemplateShowCmd(s), newClientTemplateSetCmd(s), newClientTemplateRemoveCmd(s))
}

func newClientTemplateListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the client templates, the built-in ones too", Example: "  node-core client-template list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.ClientTemplate, error) {
			return c.ClientTemplates(ctx)
		}, func(w io.Writer, all []coreapi.ClientTemplate) {
			line(w, "NAME", "FORM", "BUILT-IN", "BYTES", "AGENTS", "NOTE")
			for _, t := range all {
				line(w, t.Name, t.Form, t.BuiltIn, len(t.Body), strings.Join(t.Agents, ", "), t.Note)
			}
		})
}

func newClientTemplateShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME", Short: "Print a client template", Example: "  node-core client-template show mihomo > mihomo.yaml", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ClientTemplate, error) {
			return c.ClientTemplate(ctx, words[0])
		}, func(w io.Writer, t coreapi.ClientTemplate) { fmt.Fprint(w, t.Body) })
}

func newClientTemplateSetCmd(s *shared) *cobra.Command {
	var file string
	var edit struct {
		form, note *string
		agents     []string
	}
	cmd := command(s, &cobra.Command{
		Use: "set NAME", Short: "Add a client template, or replace the one with its name; it is tried first",
		Example: "  node-core client-template set mihomo --file mihomo.yaml\n  node-core client-template set verge --form mihomo --agent clash-verge --file verge.yaml", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ClientTemplate, error) {
		t, err := current(ctx, words[0], c.ClientTemplates, func(t coreapi.ClientTemplate) string { return t.Name })
		if err != nil {
			return t, err
		}
		t.Name = words[0]
		setFlag(&t.Form, edit.form)
		setFlag(&t.Note, edit.note)
		if edit.agents != nil {
			t.Agents = withoutEmpty(edit.agents)
		}
		if t.Agents == nil {
			t.Agents = []string{}
		}
		if file != "" {
			raw, err := os.ReadFile(file)
			if err != nil {
				return t, fmt.Errorf("read the template: %w", err)
			}
			t.Body = string(raw)
		}
		return c.SetClientTemplate(ctx, t)
	}, func(w io.Writer, t coreapi.ClientTemplate) {
		line(w, "set", t.Name, t.Form, fmt.Sprintf("%d bytes", len(t.Body)))
	})
	cmd.Flags().StringVar(&file, "file", "", "file with the template (default the one of now)")
	addOption(cmd.Flags(), &edit.form, "form", "form", "whose configuration it is: mihomo, sing-box or xray", asText)
	addOption(cmd.Flags(), &edit.note, "note", "text", "a note for you", asText)
	cmd.Flags().StringArrayVar(&edit.agents, "agent", nil, "word of the User-Agent of applications that get it; can be given several times, empty for none")
	return cmd
}

func newClientTemplateRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME", Short: "Remove a client template; a built-in one that it replaced is back then", Example: "  node-core client-template remove mihomo", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemoveClientTemplate(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove client template " + words[0] + "?" })
}

func newClientRuleCmd(s *shared) *cobra.Command {
	return group("client-rule", "Client rules: what applications get beside the form, by their User-Agent",
		"  node-core client-rule set news --header 'announce=We move to new servers on Monday'\n  node-core client-rule set old-happ --agent happ/ --below 3.0 --hide vless+xhttp --header 'announce=Update your application'",
		newClientRuleListCmd(s), newClientRuleShowCmd(s), newClientRuleSetCmd(s), newClientRuleRemoveCmd(s))
}

func newClientRuleListCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "list", Short: "List the client rules, the built-in ones too", Example: "  node-core client-rule list", Args: cobra.NoArgs},
		func(ctx context.Context, c *coreapi.Client, _ []string) ([]coreapi.ClientRule, error) {
			return c.ClientRules(ctx)
		}, func(w io.Writer, all []coreapi.ClientRule) {
			line(w, "NAME", "BUILT-IN", "AGENTS", "BELOW", "FORM", "HIDES", "HEADERS", "NOTE")
			for _, r := range all {
				line(w, r.Name, r.BuiltIn, strings.Join(r.Agents, ", "), r.Below, r.Form, strings.Join(r.Hide, ", "), strings.Join(slices.Sorted(maps.Keys(r.Headers)), ", "), r.Note)
			}
		})
}

func showClientRule(w io.Writer, r coreapi.ClientRule) {
	line(w, "rule", r.Name)
	for _, row := range [][2]string{
		{"note", r.Note}, {"agents", strings.Join(r.Agents, ", ")}, {"below", r.Below}, {"form", r.Form}, {"hides", strings.Join(r.Hide, ", ")},
	} {
		if row[1] != "" {
			line(w, row[0], row[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		line(w, "header", name+": "+r.Headers[name])
	}
}

func newClientRuleShowCmd(s *shared) *cobra.Command {
	return command(s, &cobra.Command{Use: "show NAME", Short: "Show a client rule", Example: "  node-core client-rule show clash-premium", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ClientRule, error) {
			return c.ClientRule(ctx, words[0])
		}, showClientRule)
}

func newClientRuleSetCmd(s *shared) *cobra.Command {
	var edit struct {
		note, below, form     *string
		agents, hide, headers []string
	}
	cmd := command(s, &cobra.Command{
		Use: "set NAME", Short: "Add a client rule, or change the one with its name",
		Example: "  node-core client-rule set news --header 'announce=We move to new servers on Monday'\n  node-core client-rule set old-happ --agent happ/ --below 3.0 --hide vless+xhttp", Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.ClientRule, error) {
		r, err := current(ctx, words[0], c.ClientRules, func(r coreapi.ClientRule) string { return r.Name })
		if err != nil {
			return r, err
		}
		r.Name = words[0]
		setFlag(&r.Note, edit.note)
		setFlag(&r.Below, edit.below)
		setFlag(&r.Form, edit.form)
		if edit.agents != nil {
			r.Agents = edit.agents
		}
		if edit.hide != nil {
			r.Hide = edit.hide
		}
		r.Agents, r.Hide = withoutEmpty(r.Agents), withoutEmpty(r.Hide)
		if edit.headers != nil {
			r.Headers = map[string]string{}
		}
		for _, header := range withoutEmpty(edit.headers) {
			name, value, found := strings.Cut(header, "=")
			if !found {
				return r, fmt.Errorf("header %q: want NAME=VALUE", header)
			}
			r.Headers[name] = value
		}
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		return c.SetClientRule(ctx, r)
	}, showClientRule)
	flags := cmd.Flags()
	flags.StringArrayVar(&edit.agents, "agent", nil, "word of the User-Agent; can be given several times, empty for every application")
	addOption(flags, &edit.below, "below", "version", "only for versions below this one, which stand behind the word, such as 3.0; empty for all", asText)
	addOption(flags, &edit.form, "form", "name", "form or client template that these applications get; empty for that of their family", asText)
	flags.StringArrayVar(&edit.hide, "hide", nil, "ways that are left out, such as hysteria or vless+xhttp; can be given several times, empty for none")
	flags.StringArrayVar(&edit.headers, "header", nil, "further header of the answer, NAME=VALUE, where {title}, {support}, {user}, {used}, {limit}, {left} and {expires} are replaced; can be given several times, empty for none")
	addOption(flags, &edit.note, "note", "text", "a note for you", asText)
	return cmd
}

func newClientRuleRemoveCmd(s *shared) *cobra.Command {
	return asking(s, command(s, &cobra.Command{Use: "remove NAME", Short: "Remove a client rule; a built-in one that it replaced is back then", Example: "  node-core client-rule remove news", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *coreapi.Client, words []string) (coreapi.Removed, error) {
			return c.RemoveClientRule(ctx, words[0])
		}, showRemoved), false, func(words []string) string { return "Remove client rule " + words[0] + "?" })
}

// current returns the row with a name, and the zero row for a new name.
func current[T any](ctx context.Context, name string, list func(context.Context) ([]T, error), of func(T) string) (row T, _ error) {
	all, err := list(ctx)
	if err != nil {
		return row, err
	}
	if i := slices.IndexFunc(all, func(t T) bool { return of(t) == name }); i >= 0 {
		row = all[i]
	}
	return row, nil
}

func setFlag(to, from *string) {
	if from != nil {
		*to = *from
	}
}

// withoutEmpty returns the texts that are not empty; never nil, since JSON has a list.
func withoutEmpty(all []string) []string {
	return slices.DeleteFunc(append([]string{}, all...), func(s string) bool { return s == "" })
}
