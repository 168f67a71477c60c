package adminapi

import (
	"context"
	"fmt"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) groupAdd(ctx context.Context, args GroupArgs) (GroupDetails, error) {
	group := corestore.Group{Name: args.Group, Nodes: []int64{}, Protocols: []int64{}}
	if err := checkName("group", args.Group); err != nil {
		return GroupDetails{}, err
	}
	edit, err := s.groupEditor(ctx, args)
	if err != nil {
		return GroupDetails{}, err
	}
	if err := edit(&group); err != nil {
		return GroupDetails{}, err
	}
	if group, err = s.store.AddGroup(ctx, group); err != nil {
		return GroupDetails{}, err
	}
	return s.groupDetails(ctx, group)
}

// groupEditor returns what sets the members of a group that args name.
func (s *Server) groupEditor(ctx context.Context, args GroupArgs) (func(*corestore.Group) error, error) {
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

// groupDetails adds the names of what a group reaches.
func (s *Server) groupDetails(ctx context.Context, g corestore.Group) (GroupDetails, error) {
	details := GroupDetails{Group: g, NodeNames: []string{}, ProtocolNames: []string{}}
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

func (s *Server) groupList(ctx context.Context, _ struct{}) ([]corestore.Group, error) {
	return s.store.Groups(ctx)
}

func (s *Server) groupShow(ctx context.Context, args GroupArgs) (GroupDetails, error) {
	group, err := s.store.Group(ctx, args.Group)
	if err != nil {
		return GroupDetails{}, err
	}
	return s.groupDetails(ctx, group)
}

func (s *Server) groupEdit(ctx context.Context, args GroupArgs) (GroupDetails, changed, error) {
	edit, err := s.groupEditor(ctx, args)
	if err != nil {
		return GroupDetails{}, changed{}, err
	}
	group, nodes, err := s.store.EditGroup(ctx, args.Group, edit)
	if err != nil {
		return GroupDetails{}, changed{}, err
	}
	details, err := s.groupDetails(ctx, group)
	return details, changed{nodes: nodes, serving: true}, err
}

func (s *Server) groupRemove(ctx context.Context, args GroupArgs) (Removed, error) {
	group, err := s.store.RemoveGroup(ctx, args.Group)
	return Removed{Removed: group.Name}, err
}
