package agent

import (
	"iter"
	"maps"

	"nodeagent/coreclient/wire"
	"nodeagent/xray/state"
)

// clientMap is Core's client map: the user and subscription of each client, by the client's key. It is
// a value. A map that was made from another one shares the unchanged entries with it. Its changes stand in
// two layers: each change copies the upper one, which is small, and few copy the lower one or the base.
type clientMap struct {
	base   map[string]wire.ClientRef
	lower  layer // since base
	upper  layer // since lower
	length int
}

// layer has entries that were set; nil for one that was removed.
type layer map[string]*wire.ClientRef

// The upper layer becomes a part of the lower one with more than upperMost entries, and that one a part of
// the base with more than upperMost and than a part of lowerShare of the base.
const (
	upperMost  = 64
	lowerShare = 16
)

func newClientMap(entries map[string]wire.ClientRef) clientMap {
	return clientMap{base: entries, length: len(entries)}
}

// missing reports whether the document has no client map.
func (m clientMap) missing() bool { return m.base == nil }

// find returns the entry of a key.
func (m clientMap) find(key string) (ref wire.ClientRef, known bool) {
	for _, changes := range [...]layer{m.upper, m.lower} {
		if entry, changed := changes[key]; changed {
			if entry == nil {
				return ref, false
			}
			return *entry, true
		}
	}
	ref, known = m.base[key]
	return ref, known
}

func (m clientMap) has(key string) bool {
	_, known := m.find(key)
	return known
}

// share makes the client map use the texts of the clients' keys as its own, so that each is kept once.
func (m clientMap) share(clients state.Clients) {
	for _, c := range clients {
		if ref, known := m.base[c.Key]; known {
			delete(m.base, c.Key) // to set an entry that is there would keep its key
			m.base[c.Key] = ref
		}
	}
}

// keys yields all keys.
func (m clientMap) keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		for key := range m.base {
			if !m.lower.has(key) && !m.upper.has(key) && !yield(key) {
				return
			}
		}
		for key, ref := range m.lower {
			if ref != nil && !m.upper.has(key) && !yield(key) {
				return
			}
		}
		for key, ref := range m.upper {
			if ref != nil && !yield(key) {
				return
			}
		}
	}
}

// has reports whether the layer sets or removes the entry.
func (l layer) has(key string) bool {
	_, is := l[key]
	return is
}

// with returns the layer with the changes of another one above it.
func (l layer) with(above layer) layer {
	both := make(layer, len(l)+len(above))
	maps.Copy(both, l)
	maps.Copy(both, above)
	return both
}

// with returns the client map with some entries set and others removed.
func (m clientMap) with(set map[string]wire.ClientRef, removed []string) clientMap {
	changes := make(layer, len(set)+len(removed))
	for _, key := range removed {
		if !changes.has(key) && m.has(key) {
			m.length--
		}
		changes[key] = nil
	}
	for key, ref := range set {
		if changes.has(key) || !m.has(key) { // no key is set twice
			m.length++
		}
		changes[key] = &ref
	}
	if m.upper = m.upper.with(changes); len(m.upper) <= upperMost {
		return m
	}
	if m.lower, m.upper = m.lower.with(m.upper), nil; len(m.lower) <= max(upperMost, len(m.base)/lowerShare) {
		return m
	}
	folded := make(map[string]wire.ClientRef, m.length)
	for key, ref := range m.base {
		if !m.lower.has(key) {
			folded[key] = ref
		}
	}
	for key, ref := range m.lower {
		if ref != nil {
			folded[key] = *ref
		}
	}
	return newClientMap(folded)
}
