package telemt

import (
	"context"
	"errors"
	"fmt"
	"maps"
)

// apply reaches the service from what is wanted now, or goes back to that. The
// inbounds are independent of each other: what does not change is not touched,
// the others change at once. Those whose port is another inbound's still come
// last, after the inbounds that are no more have gone.
func (e *Engine) apply(life context.Context, r request) error {
	before := map[string]wanted{}
	for _, k := range e.all() {
		_ = k.do(life, func() error { before[k.tag] = k.want; return nil })
	}
	if err := e.reach(r.ctx, life, before, r.service.each()); err != nil {
		if life.Err() != nil {
			return err
		}
		now := map[string]wanted{}
		for _, k := range e.all() {
			_ = k.do(life, func() error { now[k.tag] = k.want; return nil })
		}
		if back := e.reach(life, life, now, before); back != nil {
			err = errors.Join(err, fmt.Errorf("go back to what ran before: %w", back))
		}
		return err
	}
	for tag := range before {
		if _, stays := r.service.each()[tag]; !stays {
			(&keeper{config: e.config, log: e.deps.Log, at: folderOf(e.config.StateDir, tag)}).forget()
		}
	}
	return nil
}

func (e *Engine) reach(ctx, life context.Context, from, to map[string]wanted) error {
	first, last := map[string]wanted{}, map[string]wanted{}
	for tag, want := range to {
		if heldByOther(tag, want, from) {
			last[tag] = want
		} else {
			first[tag] = want
		}
	}
	change := func(tag string, want wanted) error {
		k := e.keeperOf(life, tag)
		return k.do(ctx, func() error { return k.apply(ctx, want) })
	}
	if err := together(first, change); err != nil {
		e.dropUnused(life)
		return err
	}
	gone := maps.Clone(from)
	for tag := range to {
		delete(gone, tag)
	}
	_ = together(gone, func(tag string, _ wanted) error { return e.drop(life, tag) })
	err := together(last, change)
	e.dropUnused(life)
	return err
}

// heldByOther tells whether another inbound listens where this one is to listen.
func heldByOther(tag string, want wanted, running map[string]wanted) bool {
	for other, has := range running {
		if other != tag && has.in.overlaps(want.in) {
			return true
		}
	}
	return false
}

// drop ends an inbound.
func (e *Engine) drop(life context.Context, tag string) error {
	e.mu.Lock()
	k := e.keepers[tag]
	delete(e.keepers, tag)
	e.mu.Unlock()
	if k == nil {
		return nil
	}
	return k.do(life, k.remove)
}

// dropUnused ends the keepers of inbounds that could not be added.
func (e *Engine) dropUnused(life context.Context) {
	for _, k := range e.all() {
		unused := false
		_ = k.do(life, func() error { unused = k.want.in.Tag == ""; return nil })
		if unused {
			_ = e.drop(life, k.tag)
		}
	}
}
