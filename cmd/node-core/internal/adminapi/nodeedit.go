package adminapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

const maxTags = 100

func (s *Server) nodeEdit(ctx context.Context, name string, args coreapi.NodeEdit) (corestore.Node, changed, error) {
	if args.Name != nil {
		if err := checkName("node", *args.Name); err != nil {
			return corestore.Node{}, changed{}, err
		}
		if strings.Contains(*args.Name, "/") {
			return corestore.Node{}, changed{}, badInput{fmt.Errorf("%q can't name a node: a slash separates its name from a tag", *args.Name)}
		}
	}
	if err := checkNote(args.Note); err != nil {
		return corestore.Node{}, changed{}, err
	}
	for _, tag := range args.AddTags {
		if err := checkName("tag", tag); err != nil {
			return corestore.Node{}, changed{}, err
		}
	}
	if args.Address != nil && strings.ContainsFunc(*args.Address, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/?#@\"<>\\", r)
	}) {
		return corestore.Node{}, changed{}, badInput{fmt.Errorf("address %q is neither a host name nor an IP address", *args.Address)}
	}
	var profile *corestore.Routing
	var warnings []string
	if args.Routing != nil && *args.Routing != "" {
		r, err := s.store.Routing(ctx, *args.Routing)
		if err != nil {
			return corestore.Node{}, changed{}, err
		}
		id, err := s.namedNode(ctx, name)
		if err != nil {
			return corestore.Node{}, changed{}, err
		}
		s.changing.Lock()
		defer s.changing.Unlock()
		if warnings, err = s.check(ctx, id, func(rows *rows) { rows.Routing = &r }); err != nil {
			return corestore.Node{}, changed{}, err
		}
		profile = &r
	}
	node, nodes, err := s.store.EditNode(ctx, name, func(n *corestore.Node) error {
		set(&n.Name, args.Name)
		set(&n.Region, args.Region)
		set(&n.Note, args.Note)
		set(&n.Address, args.Address)
		set(&n.Enabled, args.Enabled)
		set(&n.Multiplier, args.Multiplier)
		set(&n.BudgetBytes, args.BudgetBytes)
		set(&n.BudgetDay, args.BudgetDay)
		set(&n.BudgetAction, args.BudgetAction)
		set(&n.BudgetWarnPercent, args.BudgetWarnPercent)
		set(&n.Maintenance, args.Maintenance)
		if profile != nil {
			n.RoutingID = profile.ID
		} else if args.Routing != nil {
			n.RoutingID = 0
		}
		tags := append(slices.Clone(n.Tags), args.AddTags...)
		slices.Sort(tags)
		n.Tags = slices.DeleteFunc(slices.Compact(tags), func(tag string) bool { return slices.Contains(args.RemoveTags, tag) })
		if len(n.Tags) > maxTags {
			return badInput{fmt.Errorf("a node has at most %d tags", maxTags)}
		}
		if err := n.Check(); err != nil {
			return badInput{err}
		}
		return nil
	})
	return node, changed{nodes: nodes, warnings: warnings}, err
}
