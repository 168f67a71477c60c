package coreapi

import (
	"context"
	"net/http"
	"time"
)

// Plan is a template of subscriptions' terms. A subscription that is added with a plan gets a
// copy: a later edit of the plan concerns later subscriptions alone.
type Plan struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Note string `json:"note"`
	Terms
	ExpiresAfterSeconds int64     `json:"expiresAfterSeconds" doc:"How long a subscription lives; 0 for ever."`
	FromFirstUse        bool      `json:"fromFirstUse" doc:"Its life begins with the first use, and not when it is added."`
	CreatedAt           time.Time `json:"createdAt" doc:"UTC"`
}

// NewPlan describes a plan to add.
type NewPlan struct {
	Name string  `json:"name" doc:"1 to 100 bytes without control characters, and no number."`
	Note *string `json:"note,omitempty"`
	TermsEdit
}

// PlanEdit says what of a plan is changed: the members that are there.
type PlanEdit struct {
	Name *string `json:"name,omitempty" doc:"The other name."`
	Note *string `json:"note,omitempty"`
	TermsEdit
}

// AddPlan adds a plan.
func (c *Client) AddPlan(ctx context.Context, plan NewPlan) (Plan, error) {
	return call[Plan](ctx, c, http.MethodPost, "/plans", nil, plan)
}

// Plans returns all plans.
func (c *Client) Plans(ctx context.Context) ([]Plan, error) {
	return call[[]Plan](ctx, c, http.MethodGet, "/plans", nil, nil)
}

// Plan returns the plan of that name or id.
func (c *Client) Plan(ctx context.Context, nameOrID string) (Plan, error) {
	return call[Plan](ctx, c, http.MethodGet, "/plans/"+segment(nameOrID), nil, nil)
}

// EditPlan changes a plan.
func (c *Client) EditPlan(ctx context.Context, nameOrID string, edit PlanEdit) (Plan, error) {
	return call[Plan](ctx, c, http.MethodPatch, "/plans/"+segment(nameOrID), nil, edit)
}

// RemovePlan removes a plan.
func (c *Client) RemovePlan(ctx context.Context, nameOrID string) (Removed, error) {
	return call[Removed](ctx, c, http.MethodDelete, "/plans/"+segment(nameOrID), nil, nil)
}
