package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
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
			Status string `query:"status" doc:"active, on_hold, disabled, limited or expired"`
			User   string `query:"user" doc:"Name or id of a user: only that user's."`
			Group  string `query:"group" doc:"Name or id of a group: only those in it."`
			Plan   string `query:"plan" doc:"Name or id of a plan: only those that were added with it."`
			Search string `query:"search" maxLength:"100" doc:"A part of the user's name or of the note, or a whole UUID."`
			Sort   string `query:"sort" enum:"id,-id,user,-user,expires,-expires" default:"id" doc:"user is the name of the user. Those that never expire, or have not begun, are last in expires."`
		},
		) (page coreapi.Page[corestore.Subscription], err error) {
			list, err := in.list(in.Sort)
			if err != nil {
				return page, err
			}
			filter, err := s.findFilter(ctx, subscriptionFilter{in.Status, in.User, in.Group, in.Plan, in.Search})
			if err != nil {
				return page, err
			}
			page, err = pageOf(s.store.ListSubscriptions(ctx, filter, list))
			hideCredentials(ctx, page.Items)
			return page, err
		})
	read(a, operation{id: "subscription-show", method: http.MethodGet, path: "/subscriptions/{subscription}", noun: "subscriptions", summary: "Show a subscription and its links", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (subscriptionDetails, error) {
			return s.subscriptionShow(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-add", method: http.MethodPost, path: "/subscriptions", noun: "subscriptions", summary: "Add a subscription for a user", role: coreapi.Support, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewSubscription }) (subscriptionDetails, changed, error) {
			return s.subscriptionAdd(ctx, subscriptionArgs{User: in.Body.User, SubscriptionEdit: in.Body.SubscriptionEdit})
		})
	change(a, operation{id: "subscription-edit", method: http.MethodPatch, path: "/subscriptions/{subscription}", noun: "subscriptions", summary: "Change the terms of a subscription; its links stay the same", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *struct {
			ID   string `path:"subscription" doc:"Id or UUID of the subscription. The UUID is a credential: proxies may log paths."`
			Body coreapi.SubscriptionEdit
		},
		) (subscriptionDetails, changed, error) {
			return s.subscriptionEdit(ctx, subscriptionArgs{ID: in.ID, SubscriptionEdit: in.Body})
		})
	change(a, operation{id: "subscription-rotate", method: http.MethodPost, path: "/subscriptions/{subscription}/rotate", noun: "subscriptions", summary: "Give a subscription other credentials; the links of before let nobody in", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (subscriptionDetails, changed, error) {
			return s.subscriptionRotate(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-rotate-link", method: http.MethodPost, path: "/subscriptions/{subscription}/rotate-link", noun: "subscriptions", summary: "Give a subscription another link of its own; its credentials stay", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (subscriptionDetails, changed, error) {
			return s.subscriptionRotateLink(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-reset", method: http.MethodPost, path: "/subscriptions/{subscription}/reset", noun: "subscriptions", summary: "Count the bytes of a subscription's period anew", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (corestore.Subscription, changed, error) {
			return s.subscriptionReset(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-extend", method: http.MethodPost, path: "/subscriptions/{subscription}/extend", noun: "subscriptions", summary: "Move the end of a subscription: from now on where it is over, and from the end where it is not", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *struct {
			ID   string `path:"subscription" doc:"Id or UUID of the subscription. The UUID is a credential: proxies may log paths."`
			Body coreapi.Extension
		},
		) (corestore.Subscription, changed, error) {
			return s.renew(ctx, in.ID, func(sub *corestore.Subscription) error { return sub.Extend(time.Now(), in.Body.Seconds) })
		})
	change(a, operation{id: "subscription-top-up", method: http.MethodPost, path: "/subscriptions/{subscription}/top-up", noun: "subscriptions", summary: "Give a subscription more bytes in the period that it is in", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *struct {
			ID   string `path:"subscription" doc:"Id or UUID of the subscription. The UUID is a credential: proxies may log paths."`
			Body coreapi.TopUp
		},
		) (corestore.Subscription, changed, error) {
			return s.renew(ctx, in.ID, func(sub *corestore.Subscription) error { return sub.TopUp(in.Body.Bytes) })
		})
	change(a, operation{id: "subscription-disable", method: http.MethodPost, path: "/subscriptions/{subscription}/disable", noun: "subscriptions", summary: "Cut a subscription off on every node", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (corestore.Subscription, changed, error) {
			return s.subscriptionDisable(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-enable", method: http.MethodPost, path: "/subscriptions/{subscription}/enable", noun: "subscriptions", summary: "Let a disabled subscription in again; its links stay the same", role: coreapi.Support, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (corestore.Subscription, changed, error) {
			return s.subscriptionEnable(ctx, idArgs(*in))
		})
	change(a, operation{id: "subscription-remove", method: http.MethodDelete, path: "/subscriptions/{subscription}", noun: "subscriptions", summary: "Remove a subscription for good; its usage rows are kept", role: coreapi.Operator, etag: corestore.KindSubscription},
		func(ctx context.Context, in *subscriptionIn) (coreapi.Removed, changed, error) {
			return s.subscriptionRemove(ctx, idArgs(*in))
		})
}

func (s *Server) subscriptionAdd(ctx context.Context, args subscriptionArgs) (subscriptionDetails, changed, error) {
	var details subscriptionDetails
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
func (s *Server) subscriptionEditor(ctx context.Context, args subscriptionArgs) (func(*corestore.Subscription), error) {
	terms, err := s.resolve(ctx, args.TermsEdit)
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

func (s *Server) subscriptionEdit(ctx context.Context, args subscriptionArgs) (subscriptionDetails, changed, error) {
	edit, err := s.subscriptionEditor(ctx, args)
	if err != nil {
		return subscriptionDetails{}, changed{}, err
	}
	return s.changeSubscription(ctx, args.ID, edit)
}

// subscriptionRotate gives a subscription other credentials: its links of before let nobody in.
func (s *Server) subscriptionRotate(ctx context.Context, args idArgs) (subscriptionDetails, changed, error) {
	return s.changeSubscription(ctx, args.ID, (*corestore.Subscription).Rotate)
}

// subscriptionRotateLink gives a subscription another link of its own: the one of before finds
// nothing any more. Its credentials stay.
func (s *Server) subscriptionRotateLink(ctx context.Context, args idArgs) (subscriptionDetails, changed, error) {
	return s.changeSubscription(ctx, args.ID, (*corestore.Subscription).RotateLink)
}

func (s *Server) changeSubscription(ctx context.Context, id string, edit func(*corestore.Subscription)) (subscriptionDetails, changed, error) {
	sub, nodes, err := s.store.EditSubscription(ctx, id, func(sub *corestore.Subscription) error {
		edit(sub)
		return nil
	})
	if err != nil {
		return subscriptionDetails{}, changed{}, err
	}
	details, err := s.withLinks(ctx, sub)
	c := changed{nodes: nodes, serving: true}
	if sub.Served() {
		c.warnings = s.checkSubscription(ctx, nodes)
	}
	return details, c, err
}

// subscriptionReset begins the count of the period anew.
func (s *Server) subscriptionReset(ctx context.Context, args idArgs) (corestore.Subscription, changed, error) {
	return s.renew(ctx, args.ID, func(sub *corestore.Subscription) error {
		sub.Reset(time.Now())
		return nil
	})
}

// renew makes a change that can let a subscription in again. An error of it is one of the request.
func (s *Server) renew(ctx context.Context, id string, edit func(*corestore.Subscription) error) (corestore.Subscription, changed, error) {
	sub, nodes, err := s.store.EditSubscription(ctx, id, func(sub *corestore.Subscription) error {
		if err := edit(sub); err != nil {
			return badInput{err}
		}
		return nil
	})
	return sub, changed{nodes: nodes, serving: true, warnings: s.checkSubscription(ctx, nodes)}, err
}

// withLinks adds the links to each inbound of each registered node that the subscription's group
// reaches. Inbounds for which no link can be made, and nodes that serve nobody, are listed in NoLinks; they
// do not keep the others from having one.
func (s *Server) withLinks(ctx context.Context, sub corestore.Subscription) (subscriptionDetails, error) {
	shown := subscriptionDetails{Subscription: sub, URL: s.linksURL + corestore.LinkPrefix + s.store.LinkToken(sub), Links: []string{}}
	for _, mirror := range s.mirrors {
		shown.Mirrors = append(shown.Mirrors, mirror+corestore.LinkPrefix+s.store.LinkToken(sub))
	}
	var err error
	if shown.Fetched, shown.Devices, err = s.store.LastFetch(ctx, sub.ID); err != nil {
		return shown, err
	}
	plan, err := s.linkPlan(ctx, sub.GroupID)
	if err != nil {
		return shown, err
	}
	user, err := s.store.User(ctx, strconv.FormatInt(sub.UserID, 10))
	if err != nil {
		return shown, err
	}
	shown.Links, shown.NoLinks = plan.links(sub, user.Name)
	return shown, nil
}

func (s *Server) subscriptionShow(ctx context.Context, args idArgs) (subscriptionDetails, error) {
	sub, err := s.store.Subscription(ctx, args.ID)
	if err != nil {
		return subscriptionDetails{}, err
	}
	return s.withLinks(ctx, sub)
}

// findFilter finds what a filter names.
func (s *Server) findFilter(ctx context.Context, args subscriptionFilter) (f corestore.SubscriptionFilter, err error) {
	f = corestore.SubscriptionFilter{Status: args.Status, Search: args.Search}
	if f.Status != "" && !slices.Contains(corestore.Statuses, f.Status) {
		return f, badInput{fmt.Errorf("status %q is unknown: want one of %s", f.Status, strings.Join(corestore.Statuses, ", "))}
	}
	if args.User != "" {
		user, err := s.store.User(ctx, args.User)
		if err != nil {
			return f, err
		}
		f.UserID = user.ID
	}
	if args.Group != "" {
		group, err := s.store.Group(ctx, args.Group)
		if err != nil {
			return f, err
		}
		f.GroupID = group.ID
	}
	if args.Plan != "" {
		plan, err := s.store.Plan(ctx, args.Plan)
		if err != nil {
			return f, err
		}
		f.PlanID = plan.ID
	}
	return f, nil
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
