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
	before, to := e.wanted, r.service.Each()
	if err := e.reach(r.ctx, life, before, to); err != nil {
		if back := e.back(r.ctx, life, before); back != nil {
			err = errors.Join(err, fmt.Errorf("go back to what ran before: %w", back))
		}
		return err
	}
	e.wanted = to
	for tag := range before {
		if _, stays := to[tag]; !stays {
			if err := process.FolderOf(e.config.StateDir, tag).Remove(); err != nil {
				e.deps.Log.Warn("an mtproto inbound that is gone leaves something", "tag", tag, "error", err)
			}
		}
	}
	return nil
}

// reach changes what differs. The inbounds are independent of each other: they
// change at once, and what does not change is not touched. Those whose port is
// another inbound's still come last, once all have let go of it.
func (e *Engine) reach(ctx, life context.Context, from, to map[string]service.Wanted) error {
	first, last, gone := map[string]service.Wanted{}, map[string]service.Wanted{}, maps.Clone(from)
	for tag, want := range to {
		delete(gone, tag)
		switch {
		case reflect.DeepEqual(from[tag], want):
		case len(holders(tag, want, from)) > 0:
			last[tag] = want
		default:
			first[tag] = want
		}
	}
	change := func(tag string, want service.Wanted) error { return e.keeperOf(life, tag).apply(ctx, want) }
	if err := together(first, change); err != nil {
		return err
	}
	needed := map[string]service.Wanted{} // by who holds it, what it is needed for
	for tag, want := range last {
		for _, holder := range holders(tag, want, from) {
			needed[holder] = want
		}
	}
	if err := together(needed, func(tag string, next service.Wanted) error {
		if _, leaves := gone[tag]; leaves {
			return e.drop(life, tag)
		}
		k := e.keeperOf(life, tag)
		return k.do(ctx, func() error {
			if k.running.In.Overlaps(next.In) { // else it has moved already
				k.end()
			}
			return nil
		})
	}); err != nil {
		return err
	}
	if err := together(last, change); err != nil {
		return err
	}
	return together(gone, func(tag string, _ service.Wanted) error { return e.drop(life, tag) })
}

// holders are the other inbounds that listen where this one is to.
func holders(tag string, want service.Wanted, running map[string]service.Wanted) []string {
	var others []string
	for other, has := range running {
		if other != tag && has.In.Overlaps(want.In) {
			others = append(others, other)
		}
	}
	return others
}

// back brings every inbound to what it was, now or by later tries, whatever fails
// on the way.
func (e *Engine) back(ctx, life context.Context, before map[string]service.Wanted) error {
	ctx, cancel := backContext(ctx, life)
	defer cancel()
	strange := map[string]service.Wanted{}
	for _, k := range e.all() {
		if _, belongs := before[k.tag]; !belongs {
			strange[k.tag] = service.Wanted{}
		}
	}
	_ = together(strange, func(tag string, _ service.Wanted) error { return e.drop(life, tag) })
	_ = together(before, func(tag string, want service.Wanted) error { // whoever sits on another's port
		k := e.keeperOf(life, tag)
		return k.do(life, func() error {
			if k.process != nil && k.running.In.Address() != want.In.Address() {
				k.end()
			}
			return nil
		})
	})
	return together(before, func(tag string, want service.Wanted) error {
		k := e.keeperOf(life, tag)
		return k.do(life, func() error {
			if k.process != nil && !k.astray && reflect.DeepEqual(k.running, want) || k.process == nil && !k.retryAt.IsZero() && reflect.DeepEqual(k.want, want) {
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
	k.quit()
	return err
}

// together does something for each inbound, all at once.
func together(all map[string]service.Wanted, do func(string, service.Wanted) error) error {
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
