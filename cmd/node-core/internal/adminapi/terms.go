package adminapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// resolvedTerms are terms whose group is an id.
type resolvedTerms struct {
	coreapi.TermsEdit
	groupID int64 // 0 where none is given
}

// resolve finds what the terms name, and refuses values that mean nothing.
func (s *Server) resolve(ctx context.Context, args coreapi.TermsEdit) (resolvedTerms, error) {
	r := resolvedTerms{TermsEdit: args}
	if args.Group != nil {
		g, err := s.store.Group(ctx, *args.Group)
		if err != nil {
			return r, err
		}
		r.groupID = g.ID
	}
	sample := corestore.Terms{Period: "none"}
	r.setTerms(&sample)
	if err := sample.Check(); err != nil {
		return r, badInput{err}
	}
	if e := args.Expiry; e != nil {
		switch {
		case e.AfterSeconds < 0 || e.AfterSeconds > maxLife:
			return r, badInput{fmt.Errorf("it can't expire in %d seconds: want 0 to %d", e.AfterSeconds, int64(maxLife))}
		case e.At != nil && e.AfterSeconds > 0:
			return r, badInput{errors.New("it expires either at a time or after a while")}
		case e.FromFirstUse && e.AfterSeconds == 0:
			return r, badInput{errors.New("from the first use, it expires after a while and not at a time")}
		case e.StartsBy != nil && !e.FromFirstUse:
			return r, badInput{errors.New("only a life that begins with the first use has a last moment to begin")}
		}
	}
	return r, nil
}

// maxLife bounds how long a subscription may live, in seconds: a thousand years.
const maxLife = 1000 * 365 * 24 * 3600

func (r resolvedTerms) setTerms(t *corestore.Terms) {
	set(&t.LimitBytes, r.LimitBytes)
	set(&t.Period, r.Period)
	set(&t.LimitIPs, r.LimitIPs)
	set(&t.LimitConnections, r.LimitConnections)
	set(&t.LimitDevices, r.LimitDevices)
	set(&t.RateUpBitsPerSecond, r.RateUpBitsPerSecond)
	set(&t.RateDownBitsPerSecond, r.RateDownBitsPerSecond)
	if r.groupID != 0 {
		t.GroupID = r.groupID
	}
}

// set stores what to point at, where it points at something.
func set[T any](to, what *T) {
	if what != nil {
		*to = *what
	}
}

// setSubscription sets the terms of a subscription.
func (r resolvedTerms) setSubscription(sub *corestore.Subscription, now time.Time) {
	r.setTerms(&sub.Terms)
	e := r.Expiry
	if e == nil {
		return
	}
	sub.ExpiresAt, sub.ExpiresAfterSeconds, sub.StartsBy = nil, 0, nil
	switch {
	case e.FromFirstUse:
		sub.ExpiresAfterSeconds = e.AfterSeconds
		if e.StartsBy != nil {
			sub.StartsBy = new(e.StartsBy.UTC())
		}
	case e.AfterSeconds > 0:
		sub.ExpiresAt = new(now.UTC().Add(time.Duration(e.AfterSeconds) * time.Second))
	case e.At != nil:
		sub.ExpiresAt = new(e.At.UTC())
	}
}

// setPlan sets the terms of a plan.
func (r resolvedTerms) setPlan(p *corestore.Plan) error {
	r.setTerms(&p.Terms)
	if e := r.Expiry; e != nil {
		if e.At != nil {
			return badInput{errors.New("the subscriptions of a plan expire after a while, such as 30d, and not at a time")}
		}
		if e.StartsBy != nil {
			return badInput{errors.New("a plan names no last moment to begin: give it to each subscription")}
		}
		p.ExpiresAfterSeconds, p.FromFirstUse = e.AfterSeconds, e.FromFirstUse
	}
	return nil
}
