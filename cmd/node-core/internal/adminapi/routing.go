package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// routingIn names a routing profile in a path.
type routingIn struct {
	Routing string `path:"routing" doc:"Name or id of the routing profile."`
}

func registerRouting(a api) {
	s := a.server
	read(a, operation{id: "routing-list", method: http.MethodGet, path: "/routing-profiles", noun: "routing", summary: "List the routing profiles", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]corestore.Routing, error) { return s.store.Routings(ctx) })
	read(a, operation{id: "routing-show", method: http.MethodGet, path: "/routing-profiles/{routing}", noun: "routing", summary: "Show a routing profile and the nodes that have it", role: coreapi.ReadOnly, etag: corestore.KindRouting},
		func(ctx context.Context, in *routingIn) (coreapi.RoutingDetails, error) {
			return s.routingShow(ctx, in.Routing)
		})
	change(a, operation{id: "routing-add", method: http.MethodPost, path: "/routing-profiles", noun: "routing", summary: "Add a routing profile; it blocks private destinations unless it says otherwise", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewRouting }) (coreapi.RoutingDetails, changed, error) {
			return s.routingAdd(ctx, in.Body.RoutingEdit)
		})
	change(a, operation{id: "routing-edit", method: http.MethodPatch, path: "/routing-profiles/{routing}", noun: "routing", summary: "Change a routing profile and which nodes have it; only the nodes concerned get another revision", role: coreapi.Operator, etag: corestore.KindRouting},
		func(ctx context.Context, in *struct {
			Routing string `path:"routing" doc:"Name or id of the routing profile."`
			Body    coreapi.RoutingEdit
		},
		) (coreapi.RoutingDetails, changed, error) {
			return s.routingEdit(ctx, in.Routing, in.Body)
		})
	read(a, operation{id: "routing-remove", method: http.MethodDelete, path: "/routing-profiles/{routing}", noun: "routing", summary: "Remove a routing profile that no node has", role: coreapi.Operator, etag: corestore.KindRouting},
		func(ctx context.Context, in *routingIn) (coreapi.Removed, error) {
			r, err := s.store.RemoveRouting(ctx, in.Routing)
			return coreapi.Removed{Removed: r.Name}, err
		})
}

// maxListed bounds how many domains or addresses a profile blocks by name, and how many bytes
// one of them has.
const maxListed = 1000

// routingEditor returns what sets the members of a routing profile.
func (s *Server) routingEditor(ctx context.Context, args coreapi.RoutingEdit) (func(*corestore.Routing) error, error) {
	if args.Name != nil {
		if err := checkName("routing profile", *args.Name); err != nil {
			return nil, err
		}
	}
	if err := checkNote(args.Note); err != nil {
		return nil, err
	}
	var came, left []int64
	for words, to := range map[*[]string]*[]int64{&args.AddNodes: &came, &args.RemoveNodes: &left} {
		for _, word := range *words {
			id, err := s.namedNode(ctx, word)
			if err != nil {
				return nil, err
			}
			*to = append(*to, id)
		}
	}
	return func(r *corestore.Routing) error {
		set(&r.Name, args.Name)
		set(&r.Note, args.Note)
		set(&r.BlockPrivate, args.BlockPrivate)
		set(&r.BlockTorrents, args.BlockTorrents)
		set(&r.DomainStrategy, args.DomainStrategy)
		for _, list := range []struct {
			to   *[]string
			from *[]string
		}{{&r.BlockDomains, args.BlockDomains}, {&r.BlockIPs, args.BlockIPs}} {
			set(list.to, list.from)
			if *list.to == nil {
				*list.to = []string{}
			}
			if len(*list.to) > maxListed || slices.ContainsFunc(*list.to, func(word string) bool { return word == "" || len(word) > maxListed }) {
				return badInput{fmt.Errorf("want at most %d domains or addresses, of 1 to %d bytes each", maxListed, maxListed)}
			}
		}
		for _, object := range []struct {
			to   *json.RawMessage
			from *json.RawMessage
			none string
		}{{&r.Rules, args.Rules, "[]"}, {&r.DNS, args.DNS, "{}"}, {&r.Policy, args.Policy, "{}"}} {
			set(object.to, object.from)
			if text := string(*object.to); text == object.none || text == "null" {
				*object.to = nil
			}
		}
		r.Nodes = without(append(r.Nodes, came...), left)
		if err := nodeconfig.CheckRouting(*r); err != nil {
			return badInput{err}
		}
		return nil
	}, nil
}

func (s *Server) routingAdd(ctx context.Context, args coreapi.RoutingEdit) (coreapi.RoutingDetails, changed, error) {
	if args.Name == nil {
		return coreapi.RoutingDetails{}, changed{}, checkName("routing profile", "")
	}
	edit, err := s.routingEditor(ctx, args)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	r := corestore.Routing{BlockPrivate: true, Nodes: []int64{}}
	if err := edit(&r); err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	warnings, err := s.checkRouting(ctx, r)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	r, nodes, err := s.store.AddRouting(ctx, r)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	details, err := s.routingDetails(ctx, r)
	return details, changed{nodes: nodes, warnings: warnings}, err
}

func (s *Server) routingEdit(ctx context.Context, name string, args coreapi.RoutingEdit) (coreapi.RoutingDetails, changed, error) {
	edit, err := s.routingEditor(ctx, args)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.store.Routing(ctx, name)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	if err := edit(&r); err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	warnings, err := s.checkRouting(ctx, r)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	r, nodes, err := s.store.EditRouting(ctx, name, edit)
	if err != nil {
		return coreapi.RoutingDetails{}, changed{}, err
	}
	details, err := s.routingDetails(ctx, r)
	return details, changed{nodes: nodes, warnings: warnings}, err
}

// checkRouting checks with the rules of each node that is to have the profile.
func (s *Server) checkRouting(ctx context.Context, profile corestore.Routing) (warnings []string, err error) {
	for _, id := range profile.Nodes {
		more, err := s.check(ctx, id, func(r *rows) { r.Routing = &profile })
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", id, err)
		}
		warnings = append(warnings, more...)
	}
	return warnings, nil
}

func (s *Server) routingShow(ctx context.Context, name string) (coreapi.RoutingDetails, error) {
	r, err := s.store.Routing(ctx, name)
	if err != nil {
		return coreapi.RoutingDetails{}, err
	}
	return s.routingDetails(ctx, r)
}

// routingDetails adds the names of a profile's nodes.
func (s *Server) routingDetails(ctx context.Context, r corestore.Routing) (coreapi.RoutingDetails, error) {
	d := coreapi.RoutingDetails{Routing: r, NodeNames: []string{}}
	for _, id := range r.Nodes {
		node, err := s.store.NodeByID(ctx, id)
		if err != nil {
			return d, err
		}
		d.NodeNames = append(d.NodeNames, node.Name)
	}
	return d, nil
}
