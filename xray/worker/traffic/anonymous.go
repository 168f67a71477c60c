package traffic

import (
	"maps"
	"slices"
)

// openAnonymous registers a stream that belongs to no client, so that EndAnonymous and
// EndUnknownAccounts find it.
func (r *Registry) openAnonymous(inbound string, s *stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isUnknownNameLocked(inbound, s.name) {
		return errNotOfThisClient // the inbound has changed since lookup
	}
	if r.anonymous[inbound] == nil {
		r.anonymous[inbound] = map[*stream]struct{}{}
	}
	r.anonymous[inbound][s] = struct{}{}
	r.Streams.Add(1)
	return nil
}

// isUnknownNameLocked tells whether the registry knows all clients of the inbound and name
// is not an account that is served without a client. The caller has found no client with
// that name.
func (r *Registry) isUnknownNameLocked(inbound, name string) bool {
	unattributed, managed := r.managed[inbound]
	return managed && name != "" && !slices.Contains(unattributed, name)
}

func (r *Registry) closeAnonymous(inbound string, s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.anonymous[inbound], s)
	r.Streams.Add(-1)
	if len(r.anonymous[inbound]) == 0 {
		delete(r.anonymous, inbound)
	}
}

// EndAnonymous ends the inbound's streams that belong to no client.
func (r *Registry) EndAnonymous(inbound string) {
	r.mu.RLock()
	streams := slices.Collect(maps.Keys(r.anonymous[inbound]))
	r.mu.RUnlock()
	for _, s := range streams {
		s.kill()
	}
}

// EndUnknownAccounts ends the streams of the inbound that belong to no client and whose
// account the inbound no longer has.
func (r *Registry) EndUnknownAccounts(inbound string) {
	var gone []*stream
	r.mu.RLock()
	for s := range r.anonymous[inbound] {
		if r.isUnknownNameLocked(inbound, s.name) {
			gone = append(gone, s)
		}
	}
	r.mu.RUnlock()
	for _, s := range gone {
		s.kill()
	}
}
