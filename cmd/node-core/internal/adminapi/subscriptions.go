package adminapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) subscriptionAdd(ctx context.Context, args SubscriptionArgs) (SubscriptionDetails, changed, error) {
	var details SubscriptionDetails
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return details, changed{}, err
	}
	edit, err := s.subscriptionEditor(ctx, args)
	if err != nil {
		return details, changed{}, err
	}
	var sub corestore.Subscription
	edit(&sub)
	sub.UserID = user.ID
	sub, nodes, err := s.store.InsertSubscription(ctx, sub)
	if err != nil {
		return details, changed{}, err
	}
	details, err = s.withLinks(ctx, sub)
	return details, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, err
}

// subscriptionEditor returns what sets the members of a subscription that args name.
func (s *Server) subscriptionEditor(ctx context.Context, args SubscriptionArgs) (func(*corestore.Subscription), error) {
	terms, err := s.resolve(ctx, args.TermsArgs)
	if err != nil {
		return nil, err
	}
	if err := checkNote(args.Note); err != nil {
		return nil, err
	}
	now := time.Now()
	var of *corestore.Subscription // what the plan gives
	if args.Plan != nil && *args.Plan != "" {
		plan, err := s.store.Plan(ctx, *args.Plan)
		if err != nil {
			return nil, err
		}
		of = new(plan.Subscription(now))
	}
	return func(sub *corestore.Subscription) {
		switch {
		case of != nil:
			sub.PlanID, sub.Terms = of.PlanID, of.Terms
			sub.ExpiresAt, sub.ExpiresAfterSeconds = of.ExpiresAt, of.ExpiresAfterSeconds
		case args.Plan != nil:
			sub.PlanID = 0
		}
		set(&sub.Note, args.Note)
		terms.setSubscription(sub, now)
	}, nil
}

func (s *Server) subscriptionEdit(ctx context.Context, args SubscriptionArgs) (SubscriptionDetails, changed, error) {
	edit, err := s.subscriptionEditor(ctx, args)
	if err != nil {
		return SubscriptionDetails{}, changed{}, err
	}
	return s.changeSubscription(ctx, args.ID, edit)
}

// subscriptionRotate gives a subscription other credentials: its links of before let nobody in.
func (s *Server) subscriptionRotate(ctx context.Context, args IDArgs) (SubscriptionDetails, changed, error) {
	return s.changeSubscription(ctx, args.ID, (*corestore.Subscription).Rotate)
}

func (s *Server) changeSubscription(ctx context.Context, id string, edit func(*corestore.Subscription)) (SubscriptionDetails, changed, error) {
	sub, nodes, err := s.store.EditSubscription(ctx, id, func(sub *corestore.Subscription) error {
		edit(sub)
		return nil
	})
	if err != nil {
		return SubscriptionDetails{}, changed{}, err
	}
	details, err := s.withLinks(ctx, sub)
	c := changed{nodes: nodes, serving: true}
	if sub.Served() {
		c.warnings = s.checkSubscription(ctx, nodes)
	}
	return details, c, err
}

// subscriptionReset begins the count of the period anew.
func (s *Server) subscriptionReset(ctx context.Context, args IDArgs) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EditSubscription(ctx, args.ID, func(sub *corestore.Subscription) error {
		sub.Reset(time.Now())
		return nil
	})
	return sub, changed{nodes: nodes, serving: true}, err
}

// withLinks adds the links to each inbound of each registered node that the subscription's group
// reaches. Inbounds for which no link can be made are listed in NoLinks; they do not keep the
// others from having one.
func (s *Server) withLinks(ctx context.Context, sub corestore.Subscription) (SubscriptionDetails, error) {
	shown := SubscriptionDetails{Subscription: sub, Links: []string{}}
	group, err := s.store.Group(ctx, strconv.FormatInt(sub.GroupID, 10))
	if err != nil {
		return shown, err
	}
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return shown, err
	}
	all, err := s.store.Protocols(ctx, 0)
	if err != nil {
		return shown, err
	}
	protocols := map[int64][]corestore.Protocol{}
	for _, p := range all {
		if group.Reaches(p.NodeID, p.ID) {
			protocols[p.NodeID] = append(protocols[p.NodeID], p)
		}
	}
	for _, node := range nodes {
		for _, p := range protocols[node.ID] {
			if why := noLink(node, p); why != "" {
				shown.NoLinks = append(shown.NoLinks, fmt.Sprintf("%s of node %s: %s", p.Tag, node.Name, why))
				continue
			}
			links, err := nodeconfig.Links(node, p, sub)
			switch {
			case err != nil:
				shown.NoLinks = append(shown.NoLinks, fmt.Sprintf("%s of node %s: %v", p.Tag, node.Name, err))
			case len(links) == 0 && node.RegisteredAt != nil:
				shown.NoLinks = append(shown.NoLinks, fmt.Sprintf("%s of node %s (%s): clients are set up by hand", p.Tag, node.Name, p.Protocol))
			}
			shown.Links = append(shown.Links, links...)
		}
	}
	return shown, nil
}

// noLink says why an inbound is not served; empty where it is.
func noLink(node corestore.Node, p corestore.Protocol) string {
	switch {
	case nodeconfig.LeftOut(node, p):
		return fmt.Sprintf("the node's Xray is too old for this inbound; 'node-core node show %s' says why", node.Name)
	case p.Status == "failed":
		return fmt.Sprintf("the node refuses this inbound; 'node-core node errors %s' says why", node.Name)
	}
	return ""
}

func (s *Server) subscriptionShow(ctx context.Context, args IDArgs) (SubscriptionDetails, error) {
	sub, err := s.store.Subscription(ctx, args.ID)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	return s.withLinks(ctx, sub)
}

func (s *Server) subscriptionList(ctx context.Context, args SubscriptionListArgs) ([]corestore.Subscription, error) {
	f := corestore.SubscriptionFilter{Status: args.Status, Search: args.Search, Limit: args.Limit}
	if f.Status != "" && !slices.Contains(corestore.Statuses, f.Status) {
		return nil, badInput{fmt.Errorf("status %q is unknown: want one of %s", f.Status, strings.Join(corestore.Statuses, ", "))}
	}
	if args.User != "" {
		user, err := s.store.User(ctx, args.User)
		if err != nil {
			return nil, err
		}
		f.UserID = user.ID
	}
	if args.Group != "" {
		group, err := s.store.Group(ctx, args.Group)
		if err != nil {
			return nil, err
		}
		f.GroupID = group.ID
	}
	if args.Plan != "" {
		plan, err := s.store.Plan(ctx, args.Plan)
		if err != nil {
			return nil, err
		}
		f.PlanID = plan.ID
	}
	return s.store.FindSubscriptions(ctx, f)
}

func (s *Server) subscriptionDisable(ctx context.Context, args IDArgs) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EnableSubscription(ctx, args.ID, false)
	return sub, changed{nodes: nodes, serving: true}, err
}

func (s *Server) subscriptionEnable(ctx context.Context, args IDArgs) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EnableSubscription(ctx, args.ID, true)
	return sub, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, err
}

func (s *Server) subscriptionRemove(ctx context.Context, args IDArgs) (Removed, changed, error) {
	nodes, err := s.store.RemoveSubscription(ctx, args.ID)
	return Removed{Removed: args.ID}, changed{nodes: nodes, serving: true}, err
}
