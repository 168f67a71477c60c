package adminapi

import (
	"context"
	"fmt"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
)

func (s *Server) subscriptionAdd(ctx context.Context, args UserArgs) (SubscriptionDetails, changed, error) {
	var details SubscriptionDetails
	user, err := s.store.User(ctx, args.User)
	if err != nil {
		return details, changed{}, err
	}
	sub, nodes, err := s.store.AddSubscription(ctx, user.ID)
	if err != nil {
		return details, changed{}, err
	}
	details, err = s.withLinks(ctx, sub)
	return details, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, err
}

// withLinks adds the links to each inbound of each registered node. Inbounds for which no link
// can be made are listed in NoLinks; they do not keep the others from having one.
func (s *Server) withLinks(ctx context.Context, sub corestore.Subscription) (SubscriptionDetails, error) {
	shown := SubscriptionDetails{Subscription: sub, Links: []string{}}
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return shown, err
	}
	for _, node := range nodes {
		protocols, err := s.store.Protocols(ctx, node.ID)
		if err != nil {
			return shown, err
		}
		for _, p := range protocols {
			if nodeconfig.LeftOut(node, p) {
				shown.NoLinks = append(shown.NoLinks, fmt.Sprintf("%s of node %s: the node's Xray is too old for this inbound; 'node-core node show %s' says why", p.Tag, node.Name, node.Name))
				continue
			}
			if p.Status == "failed" {
				shown.NoLinks = append(shown.NoLinks, fmt.Sprintf("%s of node %s: the node refuses this inbound; 'node-core node errors %s' says why", p.Tag, node.Name, node.Name))
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

func (s *Server) subscriptionShow(ctx context.Context, args IDArgs) (SubscriptionDetails, error) {
	sub, err := s.store.Subscription(ctx, args.ID)
	if err != nil {
		return SubscriptionDetails{}, err
	}
	return s.withLinks(ctx, sub)
}

func (s *Server) subscriptionList(ctx context.Context, _ struct{}) ([]corestore.Subscription, error) {
	return s.store.Subscriptions(ctx)
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
