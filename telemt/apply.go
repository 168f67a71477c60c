package telemt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// apply reaches the service from what is wanted now, or goes back to that.
func (e *Engine) apply(life context.Context, r request) error {
	before, to := e.desired, r.service.ByTag()
	if err := e.applyDiff(r.ctx, life, before, to); err != nil {
		if back := e.rollBack(r.ctx, life, before); back != nil {
			err = errors.Join(err, fmt.Errorf("go back to what ran before: %w", back))
		}
		return err
	}
	e.desired = to
	for tag := range before {
		if _, stays := to[tag]; !stays {
			if err := process.FolderOf(e.config.StateDir, tag).Remove(); err != nil {
				e.deps.Log.Warn("an mtproto inbound that is gone leaves something", "tag", tag, "error", err)
			}
		}
	}
	return nil
}

// applyDiff changes what differs. The inbounds are independent of each other: they
// change at once, and what does not change is not touched. Those whose port is
// another inbound's still come last, once all have let go of it.
func (e *Engine) applyDiff(ctx, life context.Context, from, to map[string]service.Desired) error {
	first, last, gone := map[string]service.Desired{}, map[string]service.Desired{}, maps.Clone(from)
	for tag, want := range to {
		delete(gone, tag)
		switch {
		case reflect.DeepEqual(from[tag], want):
		case len(portHolders(tag, want, from)) > 0:
			last[tag] = want
		default:
			first[tag] = want
		}
	}
	change := func(tag string, want service.Desired) error { return e.keeperOf(life, tag).apply(ctx, want) }
	if err := inParallel(first, change); err != nil {
		return err
	}
	needed := map[string]service.Desired{} // by who holds it, what it is needed for
	for tag, want := range last {
		for _, holder := range portHolders(tag, want, from) {
			needed[holder] = want
		}
	}
	if err := inParallel(needed, func(tag string, next service.Desired) error {
		if _, leaves := gone[tag]; leaves {
			return e.drop(life, tag)
		}
		k := e.keeperOf(life, tag)
		return k.do(ctx, func() error {
			if k.running.Inbound.Overlaps(next.Inbound) { // else it has moved already
				k.stop()
			}
			return nil
		})
	}); err != nil {
		return err
	}
	if err := inParallel(last, change); err != nil {
		return err
	}
	return inParallel(gone, func(tag string, _ service.Desired) error { return e.drop(life, tag) })
}

// portHolders are the other inbounds that listen where this one is to.
func portHolders(tag string, want service.Desired, running map[string]service.Desired) []string {
	var others []string
	for other, has := range running {
		if other != tag && has.Inbound.Overlaps(want.Inbound) {
			others = append(others, other)
		}
	}
	return others
}

// rollBack brings every inbound to what it was, now or by later tries, whatever fails
// on the way.
func (e *Engine) rollBack(ctx, life context.Context, before map[string]service.Desired) error {
	ctx, cancel := rollbackContext(ctx, life)
	defer cancel()
	unknown := map[string]service.Desired{}
	for _, k := range e.all() {
		if _, belongs := before[k.tag]; !belongs {
			unknown[k.tag] = service.Desired{}
		}
	}
	_ = inParallel(unknown, func(tag string, _ service.Desired) error { return e.drop(life, tag) })
	_ = inParallel(before, func(tag string, want service.Desired) error { // whoever sits on another's port
		k := e.keeperOf(life, tag)
		return k.do(life, func() error {
			if k.process != nil && k.running.Inbound.Address() != want.Inbound.Address() {
				k.stop()
			}
			return nil
		})
	})
	return inParallel(before, func(tag string, want service.Desired) error {
		k := e.keeperOf(life, tag)
		return k.do(life, func() error {
			if k.process != nil && !k.uncertain && reflect.DeepEqual(k.running, want) || k.process == nil && !k.retryAt.IsZero() && reflect.DeepEqual(k.desired, want) {
				return nil // it was not touched, or is on its way
			}
			return k.revert(ctx, want)
		})
	})
}

// drop ends an inbound and its keeper.
func (e *Engine) drop(life context.Context, tag string) error {
	e.mu.Lock()
	k := e.keepers[tag]
	delete(e.keepers, tag)
	e.mu.Unlock()
	if k == nil {
		return nil
	}
	err := k.do(life, k.remove)
	k.cancel()
	return err
}

// inParallel does something for each inbound, all at once.
func inParallel(all map[string]service.Desired, do func(string, service.Desired) error) error {
	tags := slices.Sorted(maps.Keys(all))
	results := make(chan error, len(tags))
	for _, tag := range tags {
		go func() { results <- do(tag, all[tag]) }()
	}
	errs := make([]error, len(tags))
	for i := range tags {
		errs[i] = <-results
	}
	return errors.Join(errs...)
}
