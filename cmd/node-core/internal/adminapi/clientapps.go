package adminapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// clientIn names a template or a rule in a path.
type clientIn struct {
	Name string `path:"name" doc:"Name of the template or the rule."`
}

func registerClientApps(a api) {
	s := a.server
	read(a, operation{id: "client-template-list", method: http.MethodGet, path: "/client-templates", noun: "client-templates", summary: "List the configurations for families of client applications", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]coreapi.ClientTemplate, error) {
			return s.clientTemplates(ctx)
		})
	read(a, operation{id: "client-template-show", method: http.MethodGet, path: "/client-templates/{name}", noun: "client-templates", summary: "Show a template", role: coreapi.ReadOnly},
		func(ctx context.Context, in *clientIn) (coreapi.ClientTemplate, error) {
			all, err := s.clientTemplates(ctx)
			return byName(all, err, "template", in.Name, func(t coreapi.ClientTemplate) string { return t.Name })
		})
	read(a, operation{id: "client-template-set", method: http.MethodPut, path: "/client-templates/{name}", noun: "client-templates", summary: "Add a template, or replace the one with its name, a built-in one too", role: coreapi.Operator},
		func(ctx context.Context, in *struct {
			Name string `path:"name" doc:"Name of the template or the rule."`
			Body coreapi.ClientTemplate
		},
		) (coreapi.ClientTemplate, error) {
			t := in.Body
			t.Name, t.BuiltIn = in.Name, false
			if err := clientapps.CheckTemplate(t); err != nil {
				return t, badInput{err}
			}
			return t, tooMany(s.store.SetClientTemplate(ctx, t))
		})
	read(a, operation{id: "client-template-remove", method: http.MethodDelete, path: "/client-templates/{name}", noun: "client-templates", summary: "Remove a template; a built-in one that it replaced is back then", role: coreapi.Operator},
		func(ctx context.Context, in *clientIn) (coreapi.Removed, error) {
			return coreapi.Removed{Removed: in.Name}, s.store.RemoveClientTemplate(ctx, in.Name)
		})
	read(a, operation{id: "client-rule-list", method: http.MethodGet, path: "/client-rules", noun: "client-rules", summary: "List the rules by User-Agent", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]coreapi.ClientRule, error) { return s.clientRules(ctx) })
	read(a, operation{id: "client-rule-show", method: http.MethodGet, path: "/client-rules/{name}", noun: "client-rules", summary: "Show a rule", role: coreapi.ReadOnly},
		func(ctx context.Context, in *clientIn) (coreapi.ClientRule, error) {
			all, err := s.clientRules(ctx)
			return byName(all, err, "rule", in.Name, func(r coreapi.ClientRule) string { return r.Name })
		})
	read(a, operation{id: "client-rule-set", method: http.MethodPut, path: "/client-rules/{name}", noun: "client-rules", summary: "Add a rule, or replace the one with its name, a built-in one too", role: coreapi.Operator},
		func(ctx context.Context, in *struct {
			Name string `path:"name" doc:"Name of the template or the rule."`
			Body coreapi.ClientRule
		},
		) (coreapi.ClientRule, error) {
			r := in.Body
			r.Name, r.BuiltIn = in.Name, false
			if err := clientapps.CheckRule(r); err != nil {
				return r, badInput{err}
			}
			return r, tooMany(s.store.SetClientRule(ctx, r))
		})
	read(a, operation{id: "client-rule-remove", method: http.MethodDelete, path: "/client-rules/{name}", noun: "client-rules", summary: "Remove a rule; a built-in one that it replaced is back then", role: coreapi.Operator},
		func(ctx context.Context, in *clientIn) (coreapi.Removed, error) {
			return coreapi.Removed{Removed: in.Name}, s.store.RemoveClientRule(ctx, in.Name)
		})
}

func (s *Server) clientTemplates(ctx context.Context) ([]coreapi.ClientTemplate, error) {
	own, err := s.store.ClientTemplates(ctx)
	return clientapps.Templates(own), err
}

func (s *Server) clientRules(ctx context.Context) ([]coreapi.ClientRule, error) {
	own, err := s.store.ClientRules(ctx)
	return clientapps.Rules(own), err
}

// byName finds a row in a list, and passes on the error of reading the list.
func byName[T any](all []T, err error, what, name string, of func(T) string) (found T, _ error) {
	if err != nil {
		return found, err
	}
	for _, row := range all {
		if of(row) == name {
			return row, nil
		}
	}
	return found, fmt.Errorf("%s %s: %w", what, name, corestore.ErrNotFound)
}

// tooMany makes the bound of the store an error of the request.
func tooMany(err error) error {
	if errors.Is(err, corestore.ErrTooMany) {
		return badInput{err}
	}
	return err
}
