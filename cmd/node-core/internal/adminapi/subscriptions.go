package adminapi

import (
	"context"
	"fmt"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// subscriptionIn names a subscription in a path.
type subscriptionIn struct {
	ID string `path:"subscription" doc:"Id or UUID of the subscription. The UUID is a credential: proxies may log paths."`
}

func registerSubscriptions(a api) {
	s := a.server
	read(a, operation{id: "subscription-list", method: http.MethodGet, path: "/subscriptions", noun: "subscriptions", summary: "List the subscriptions with their traffic", role: coreapi.ReadOnly},
		func(ctx context.Context, in *struct {
			PageIn
			User string `query:"user" doc:"Name or id of a user: only that user's."`
			Sort string `query:"sort" enum:"id,-id" default:"id"`
		},
		) (page coreapi.Page[corestore.Subscription], err error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return page, err
			}
			var user corestore.User
			if in.User != "" {
				if user, err = s.store.User(ctx, in.User); err != nil {
					return page, err
				}
			}
			page, err = pageOf(s.store.ListSubscriptions(ctx, user.ID, list))
			for i := range page.Items {
				hideCredentials(ctx, &page.Items[i])
			}
			return page, err
		})
	read(a, operation{id: "subscription-show", method: http.MethodGet, path: "/subscriptions/{subscription}", noun: "subscriptions", summary: "Show a subscription and its links", role: coreapi.Support},
		func(ctx context.Context, in *subscriptionIn) (coreapi.SubscriptionDetails, error) {
			return s.subscriptionShow(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-add", method: http.MethodPost, path: "/subscriptions", noun: "subscriptions", summary: "Add a subscription for a user", role: coreapi.Support, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewSubscription }) (coreapi.SubscriptionDetails, changed, error) {
			return s.subscriptionAdd(ctx, userArgs{User: in.Body.User})
		})
	change(a, operation{id: "subscription-disable", method: http.MethodPost, path: "/subscriptions/{subscription}/disable", noun: "subscriptions", summary: "Cut a subscription off on every node", role: coreapi.Support},
		func(ctx context.Context, in *subscriptionIn) (corestore.Subscription, changed, error) {
			return s.subscriptionDisable(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-enable", method: http.MethodPost, path: "/subscriptions/{subscription}/enable", noun: "subscriptions", summary: "Let a disabled subscription in again; its links stay the same", role: coreapi.Support},
		func(ctx context.Context, in *subscriptionIn) (corestore.Subscription, changed, error) {
			return s.subscriptionEnable(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-remove", method: http.MethodDelete, path: "/subscriptions/{subscription}", noun: "subscriptions", summary: "Remove a subscription for good; its usage rows are kept", role: coreapi.Operator},
		func(ctx context.Context, in *subscriptionIn) (coreapi.Removed, changed, error) {
			return s.subscriptionRemove(ctx, idArgs(*in))
		})
}

// hideCredentials takes the credentials out of a subscription where the caller may not have them.
func hideCredentials(ctx context.Context, sub *corestore.Subscription) {
	if !callerOf(ctx).role.May(coreapi.Support) {
		sub.UUID, sub.MTProtoSecret = "", ""
	}
}

func (s *Server) subscriptionAdd(ctx context.Context, args userArgs) (coreapi.SubscriptionDetails, changed, error) {
	var details coreapi.SubscriptionDetails
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
func (s *Server) withLinks(ctx context.Context, sub corestore.Subscription) (coreapi.SubscriptionDetails, error) {
	shown := coreapi.SubscriptionDetails{Subscription: sub, Links: []string{}}
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return shown, err
	}
	protocols, err := s.store.Protocols(ctx, 0) // one query, and not one for each node
	if err != nil {
		return shown, err
	}
	ofNode := map[int64][]corestore.Protocol{}
	for _, p := range protocols {
		ofNode[p.NodeID] = append(ofNode[p.NodeID], p)
	}
	for _, node := range nodes {
		for _, p := range ofNode[node.ID] {
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

func (s *Server) subscriptionShow(ctx context.Context, args idArgs) (coreapi.SubscriptionDetails, error) {
	sub, err := s.store.Subscription(ctx, args.ID)
	if err != nil {
		return coreapi.SubscriptionDetails{}, err
	}
	return s.withLinks(ctx, sub)
}

func (s *Server) subscriptionDisable(ctx context.Context, args idArgs) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EnableSubscription(ctx, args.ID, false)
	return sub, changed{nodes: nodes, serving: true}, err
}

func (s *Server) subscriptionEnable(ctx context.Context, args idArgs) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EnableSubscription(ctx, args.ID, true)
	return sub, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, err
}

func (s *Server) subscriptionRemove(ctx context.Context, args idArgs) (coreapi.Removed, changed, error) {
	nodes, err := s.store.RemoveSubscription(ctx, args.ID)
	return coreapi.Removed{Removed: args.ID}, changed{nodes: nodes, serving: true}, err
}
