package adminapi

import (
	"context"

	"nodeagent/cmd/node-core/internal/corestore"
)

func (s *Server) planAdd(ctx context.Context, args PlanArgs) (corestore.Plan, error) {
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
func (s *Server) planEditor(ctx context.Context, args PlanArgs) (func(*corestore.Plan) error, error) {
	terms, err := s.resolve(ctx, args.TermsArgs)
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

func (s *Server) planList(ctx context.Context, _ struct{}) ([]corestore.Plan, error) {
	return s.store.Plans(ctx)
}

func (s *Server) planShow(ctx context.Context, args PlanArgs) (corestore.Plan, error) {
	return s.store.Plan(ctx, args.Plan)
}

func (s *Server) planEdit(ctx context.Context, args PlanArgs) (corestore.Plan, error) {
	edit, err := s.planEditor(ctx, args)
	if err != nil {
		return corestore.Plan{}, err
	}
	return s.store.EditPlan(ctx, args.Plan, edit)
}

func (s *Server) planRemove(ctx context.Context, args PlanArgs) (Removed, error) {
	plan, err := s.store.RemovePlan(ctx, args.Plan)
	return Removed{Removed: plan.Name}, err
}
