package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// groupIn names a group in a path.
type groupIn struct {
	Group string `path:"group" doc:"Name or id of the group."`
}

func registerGroups(a api) {
	s := a.server
	read(a, operation{id: "group-list", method: http.MethodGet, path: "/groups", noun: "groups", summary: "List the groups", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]corestore.Group, error) { return s.store.Groups(ctx) })
	read(a, operation{id: "group-show", method: http.MethodGet, path: "/groups/{group}", noun: "groups", summary: "Show a group and what it reaches", role: coreapi.ReadOnly, etag: corestore.KindGroup},
		func(ctx context.Context, in *groupIn) (groupDetails, error) {
			return s.groupShow(ctx, groupArgs{Group: in.Group})
		})
	read(a, operation{id: "group-add", method: http.MethodPost, path: "/groups", noun: "groups", summary: "Add a group; it reaches what is named, and nothing without any", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewGroup }) (groupDetails, error) {
			return s.groupAdd(ctx, groupArgs{Group: in.Body.Name, GroupEdit: coreapi.GroupEdit{GroupReach: in.Body.GroupReach}})
		})
	change(a, operation{id: "group-edit", method: http.MethodPatch, path: "/groups/{group}", noun: "groups", summary: "Change a group and what it reaches; only the nodes concerned get another revision", role: coreapi.Operator, etag: corestore.KindGroup},
		func(ctx context.Context, in *struct {
			Group string `path:"group" doc:"Name or id of the group."`
			Body  coreapi.GroupEdit
		},
		) (groupDetails, changed, error) {
			return s.groupEdit(ctx, groupArgs{Group: in.Group, GroupEdit: in.Body})
		})
	read(a, operation{id: "group-remove", method: http.MethodDelete, path: "/groups/{group}", noun: "groups", summary: "Remove a group that no subscription and no plan is in", role: coreapi.Operator, etag: corestore.KindGroup},
		func(ctx context.Context, in *groupIn) (coreapi.Removed, error) {
			return s.groupRemove(ctx, groupArgs{Group: in.Group})
		})
}

func (s *Server) groupAdd(ctx context.Context, args groupArgs) (groupDetails, error) {
	group := corestore.Group{Name: args.Group, Nodes: []int64{}, Protocols: []int64{}}
	if err := checkName("group", args.Group); err != nil {
		return groupDetails{}, err
	}
	edit, err := s.groupEditor(ctx, args)
	if err != nil {
		return groupDetails{}, err
	}
	if err := edit(&group); err != nil {
		return groupDetails{}, err
	}
	if group, err = s.store.AddGroup(ctx, group); err != nil {
		return groupDetails{}, err
	}
	return s.detailsOf(ctx, group)
}

// groupEditor returns what sets the members of a group that args name.
func (s *Server) groupEditor(ctx context.Context, args groupArgs) (func(*corestore.Group) error, error) {
	if args.Name != nil {
		if err := checkName("group", *args.Name); err != nil {
			return nil, err
		}
	}
	if err := checkNote(args.Note); err != nil {
		return nil, err
	}
	ids := func(words []string, find func(context.Context, string) (int64, error)) (all []int64, _ error) {
		for _, word := range words {
			id, err := find(ctx, word)
			if err != nil {
				return nil, err
			}
			all = append(all, id)
		}
		return all, nil
	}
	var lists [4][]int64
	for i, named := range []struct {
		words []string
		find  func(context.Context, string) (int64, error)
	}{{args.AddNodes, s.namedNode}, {args.RemoveNodes, s.namedNode}, {args.AddProtocols, s.knownProtocol}, {args.RemoveProtocols, s.knownProtocol}} {
		var err error
		if lists[i], err = ids(named.words, named.find); err != nil {
			return nil, err
		}
	}
	return func(g *corestore.Group) error {
		set(&g.Name, args.Name)
		set(&g.Note, args.Note)
		set(&g.Everything, args.Everything)
		if args.Everything == nil && len(lists[0])+len(lists[2]) > 0 {
			g.Everything = false // who names nodes does not mean all
		}
		g.Nodes = without(append(g.Nodes, lists[0]...), lists[1])
		g.Protocols = without(append(g.Protocols, lists[2]...), lists[3])
		return nil
	}, nil
}

// without returns the numbers of all that are not in the other list, each once.
func without(all, others []int64) []int64 {
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(id int64) bool { return slices.Contains(others, id) })
}

// namedNode is nodeID for a word that must not be empty.
func (s *Server) namedNode(ctx context.Context, nameOrID string) (int64, error) {
	node, err := s.store.Node(ctx, nameOrID)
	return node.ID, err
}

// knownProtocol is protocolID for an inbound that has to exist.
func (s *Server) knownProtocol(ctx context.Context, word string) (int64, error) {
	id, err := s.protocolID(ctx, word)
	if err != nil {
		return 0, err
	}
	protocol, err := s.store.Protocol(ctx, id)
	return protocol.ID, err
}

// detailsOf adds the names of what a group reaches.
func (s *Server) detailsOf(ctx context.Context, g corestore.Group) (groupDetails, error) {
	details := groupDetails{Group: g, NodeNames: []string{}, ProtocolNames: []string{}}
	for _, id := range g.Nodes {
		node, err := s.store.NodeByID(ctx, id)
		if err != nil {
			return details, err
		}
		details.NodeNames = append(details.NodeNames, node.Name)
	}
	for _, id := range g.Protocols {
		protocol, err := s.store.Protocol(ctx, id)
		if err != nil {
			return details, err
		}
		node, err := s.store.NodeByID(ctx, protocol.NodeID)
		if err != nil {
			return details, err
		}
		details.ProtocolNames = append(details.ProtocolNames, fmt.Sprintf("%s/%s", node.Name, protocol.Tag))
	}
	return details, nil
}

func (s *Server) groupShow(ctx context.Context, args groupArgs) (groupDetails, error) {
	group, err := s.store.Group(ctx, args.Group)
	if err != nil {
		return groupDetails{}, err
	}
	return s.detailsOf(ctx, group)
}

func (s *Server) groupEdit(ctx context.Context, args groupArgs) (groupDetails, changed, error) {
	edit, err := s.groupEditor(ctx, args)
	if err != nil {
		return groupDetails{}, changed{}, err
	}
	group, nodes, err := s.store.EditGroup(ctx, args.Group, edit)
	if err != nil {
		return groupDetails{}, changed{}, err
	}
	details, err := s.detailsOf(ctx, group)
	return details, changed{nodes: nodes, serving: true}, err
}

func (s *Server) groupRemove(ctx context.Context, args groupArgs) (coreapi.Removed, error) {
	group, err := s.store.RemoveGroup(ctx, args.Group)
	return coreapi.Removed{Removed: group.Name}, err
}
