package telemt

import (
	"context"
	"errors"
	"maps"
	"reflect"

	"nodeagent/internal/logkey"
	"nodeagent/telemt/process"
	"nodeagent/telemt/service"
)

// apply brings all inbounds to the request's Service, or back to what is desired now.
func (e *Engine) apply(life context.Context, r request) error {
	before, to := e.desired, r.service.ByTag()
	if err := e.applyDiff(r.ctx, life, before, to); err != nil {
		if back := e.rollBack(r.ctx, life, before); back != nil {
			err = errors.Join(err, &service.BackError{Err: back})
		}
		return err
	}
	e.desired = to
	for tag := range before {
		if _, stays := to[tag]; !stays {
			if err := process.FolderOf(e.config.StateDir, tag).Remove(); err != nil {
				e.deps.Log.Warn("the folder of a removed mtproto inbound can't be removed", logkey.Tag, tag, logkey.Error, err)
			}
		}
	}
	return nil
}

// applyDiff changes the inbounds that differ, at the same time, and touches no other. An
// inbound whose new port still belongs to another inbound is changed last, after the other
// inbound has stopped listening on it. Removed inbounds are stopped at the very end, unless
// their port is needed.
func (e *Engine) applyDiff(ctx, life context.Context, from, to map[string]service.Desired) error {
	first, last, removed := map[string]service.Desired{}, map[string]service.Desired{}, maps.Clone(from)
	for tag, desired := range to {
		delete(removed, tag)
		switch {
		case reflect.DeepEqual(from[tag], desired):
		case len(portHolders(tag, desired, from)) > 0:
			last[tag] = desired
		default:
			first[tag] = desired
		}
	}
	change := func(tag string, desired service.Desired) error { return e.keeper(life, tag).apply(ctx, desired) }
	if err := inParallel(first, change); err != nil {
		return err
	}
	needed := map[string]service.Desired{} // by the tag of the port's holder, the inbound that needs the port
	for tag, desired := range last {
		for _, holder := range portHolders(tag, desired, from) {
			needed[holder] = desired
		}
	}
	if err := inParallel(needed, func(tag string, next service.Desired) error {
		if _, isRemoved := removed[tag]; isRemoved {
			return e.drop(life, tag)
		}
		k := e.keeper(life, tag)
		return k.do(ctx, func() error {
			if k.running.Inbound.Overlaps(next.Inbound) { // otherwise it has changed its port already
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
	return inParallel(removed, func(tag string, _ service.Desired) error { return e.drop(life, tag) })
}

// portHolders returns the tags of the other running inbounds that listen on the port that
// the inbound is to have.
func portHolders(tag string, desired service.Desired, running map[string]service.Desired) []string {
	var holders []string
	for other, has := range running {
		if other != tag && has.Inbound.Overlaps(desired.Inbound) {
			holders = append(holders, other)
		}
	}
	return holders
}

// rollBack brings all inbounds back to what they were. An inbound for which that fails is
// tried again later, and does not keep the others from it.
func (e *Engine) rollBack(ctx, life context.Context, before map[string]service.Desired) error {
	ctx, cancel := rollbackContext(ctx, life)
	defer cancel()
	added := map[string]service.Desired{}
	for _, k := range e.allKeepers() {
		if _, existed := before[k.tag]; !existed {
			added[k.tag] = service.Desired{}
		}
	}
	_ = inParallel(added, func(tag string, _ service.Desired) error { return e.drop(life, tag) })
	// Inbounds that have moved leave their new port first: it can be another one's.
	_ = inParallel(before, func(tag string, desired service.Desired) error {
		k := e.keeper(life, tag)
		return k.do(life, func() error {
			if k.process != nil && k.running.Inbound.Address() != desired.Inbound.Address() {
				k.stop()
			}
			return nil
		})
	})
	return inParallel(before, func(tag string, desired service.Desired) error {
		k := e.keeper(life, tag)
		return k.do(life, func() error {
			untouched := k.process != nil && !k.uncertain && reflect.DeepEqual(k.running, desired)
			startsSoon := k.process == nil && !k.retryAt.IsZero() && reflect.DeepEqual(k.desired, desired)
			if untouched || startsSoon {
				return nil
			}
			return k.revert(ctx, desired)
		})
	})
}

// drop stops an inbound and its keeper for good.
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

// inParallel calls do for all inbounds at the same time, and returns their errors joined.
func inParallel(inbounds map[string]service.Desired, do func(tag string, desired service.Desired) error) error {
	results := make(chan error, len(inbounds))
	for tag, desired := range inbounds {
		go func() { results <- do(tag, desired) }()
	}
	var errs []error
	for range inbounds {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}
