package adminapi

import (
	"context"
	"net/http"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// planIn names a plan in a path.
type planIn struct {
	Plan string `path:"plan" doc:"Name or id of the plan."`
}

func registerPlans(a api) {
	s := a.server
	read(a, operation{id: "plan-list", method: http.MethodGet, path: "/plans", noun: "plans", summary: "List the plans", role: coreapi.ReadOnly},
		func(ctx context.Context, _ *struct{}) ([]corestore.Plan, error) { return s.store.Plans(ctx) })
	read(a, operation{id: "plan-show", method: http.MethodGet, path: "/plans/{plan}", noun: "plans", summary: "Show a plan", role: coreapi.ReadOnly, etag: corestore.KindPlan},
		func(ctx context.Context, in *planIn) (corestore.Plan, error) { return s.store.Plan(ctx, in.Plan) })
	read(a, operation{id: "plan-add", method: http.MethodPost, path: "/plans", noun: "plans", summary: "Add a plan", role: coreapi.Operator, status: http.StatusCreated},
		func(ctx context.Context, in *struct{ Body coreapi.NewPlan }) (corestore.Plan, error) {
			return s.planAdd(ctx, planArgs{Plan: in.Body.Name, PlanEdit: coreapi.PlanEdit{Note: in.Body.Note, TermsEdit: in.Body.TermsEdit}})
		})
	read(a, operation{id: "plan-edit", method: http.MethodPatch, path: "/plans/{plan}", noun: "plans", summary: "Change a plan; subscriptions that were added with it keep their terms", role: coreapi.Operator, etag: corestore.KindPlan},
		func(ctx context.Context, in *struct {
			Plan string `path:"plan" doc:"Name or id of the plan."`
			Body coreapi.PlanEdit
		},
		) (corestore.Plan, error) {
			return s.planEdit(ctx, planArgs{Plan: in.Plan, PlanEdit: in.Body})
		})
	read(a, operation{id: "plan-remove", method: http.MethodDelete, path: "/plans/{plan}", noun: "plans", summary: "Remove a plan; subscriptions that were added with it keep their terms", role: coreapi.Operator, etag: corestore.KindPlan},
		func(ctx context.Context, in *planIn) (coreapi.Removed, error) {
			return s.planRemove(ctx, planArgs{Plan: in.Plan})
		})
}

func (s *Server) planAdd(ctx context.Context, args planArgs) (corestore.Plan, error) {
	plan := corestore.Plan{Name: args.Plan}
	if err := checkName("plan", args.Plan); err != nil {
		return plan, err
	}
	edit, err := s.planEditor(ctx, args)
	if err != nil {
		return plan, err
	}
	if err := edit(&plan); err != nil {
		return plan, err
	}
	return s.store.AddPlan(ctx, plan)
}

// planEditor returns what sets the members of a plan that args name.
func (s *Server) planEditor(ctx context.Context, args planArgs) (func(*corestore.Plan) error, error) {
	terms, err := s.resolve(ctx, args.TermsEdit)
	if err != nil {
		return nil, err
	}
	if args.Name != nil {
		if err := checkName("plan", *args.Name); err != nil {
			return nil, err
		}
	}
	if err := checkNote(args.Note); err != nil {
		return nil, err
	}
	return func(p *corestore.Plan) error {
		set(&p.Name, args.Name)
		set(&p.Note, args.Note)
		return terms.setPlan(p)
	}, nil
}

func (s *Server) planEdit(ctx context.Context, args planArgs) (corestore.Plan, error) {
	edit, err := s.planEditor(ctx, args)
	if err != nil {
		return corestore.Plan{}, err
	}
	return s.store.EditPlan(ctx, args.Plan, edit)
}

func (s *Server) planRemove(ctx context.Context, args planArgs) (coreapi.Removed, error) {
	plan, err := s.store.RemovePlan(ctx, args.Plan)
	return coreapi.Removed{Removed: plan.Name}, err
}
