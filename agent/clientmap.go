package agent

import (
	"iter"
	"maps"

	"nodeagent/coreclient/wire"
	"nodeagent/xray/state"
)

// clientMap is Core's client map: the user and subscription of each client, by the client's key. It is
// a value. A map that was made from another one shares the unchanged entries with it.
type clientMap struct {
	base    map[string]wire.ClientRef
	changed map[string]*wire.ClientRef // since base; nil for an entry that was removed
	length  int
}

// foldAfter is how many changes a client map has beside its base at least before they become part
// of a new base, which costs a copy of all entries; a large one has up to a part of foldShare.
const (
	foldAfter = 64
	foldShare = 64
)

func newClientMap(entries map[string]wire.ClientRef) clientMap {
	return clientMap{base: entries, length: len(entries)}
}

// missing reports whether the document has no client map.
func (m clientMap) missing() bool { return m.base == nil }

// find returns the entry of a key.
func (m clientMap) find(key string) (ref wire.ClientRef, known bool) {
	if entry, changed := m.changed[key]; changed {
		if entry == nil {
			return ref, false
		}
		return *entry, true
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
			if _, changed := m.changed[key]; !changed && !yield(key) {
				return
			}
		}
		for key, ref := range m.changed {
			if ref != nil && !yield(key) {
				return
			}
		}
	}
}

// with returns the client map with some entries set and others removed.
func (m clientMap) with(set map[string]wire.ClientRef, removed []string) clientMap {
	next := clientMap{base: m.base, changed: maps.Clone(m.changed), length: m.length}
	if next.changed == nil {
		next.changed = make(map[string]*wire.ClientRef, len(set)+len(removed))
	}
	for _, key := range removed {
		if m.has(key) {
			next.length--
		}
		next.changed[key] = nil
	}
	for key, ref := range set {
		if !next.has(key) {
			next.length++
		}
		next.changed[key] = &ref
	}
	if len(next.changed) <= max(foldAfter, len(next.base)/foldShare) {
		return next
	}
	folded := make(map[string]wire.ClientRef, next.length)
	for key, ref := range next.base {
		if _, changed := next.changed[key]; !changed {
			folded[key] = ref
		}
	}
	for key, ref := range next.changed {
		if ref != nil {
			folded[key] = *ref
		}
	}
	return newClientMap(folded)
}
