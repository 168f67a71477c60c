package agent

import (
	"cmp"
	"slices"

	"nodeagent/coreclient/wire/delta"
)

// hashTable has the hashes of a document's elements. A map of 200,000 of them takes more than twice
// the memory of a sorted list; what changed since the list was made stands beside it.
type hashTable struct {
	list    []hashEntry // sorted by id
	changed map[elementID]hashChange
	length  int
}

type hashEntry struct {
	id   elementID
	hash delta.Digest
}

type hashChange struct {
	hash delta.Digest
	gone bool
}

// mergeAfter is how many changes stand beside the list before they become part of it.
const mergeAfter = 4096

// newHashTable takes the entries over. twice tells that two of them have one id.
func newHashTable(entries []hashEntry) (t hashTable, twice bool) {
	byID := func(a, b hashEntry) int { return cmp.Compare(a.id, b.id) }
	slices.SortFunc(entries, byID)
	for i := range entries {
		twice = twice || i > 0 && entries[i-1].id == entries[i].id
	}
	return hashTable{list: entries, changed: map[elementID]hashChange{}, length: len(entries)}, twice
}

func (t *hashTable) find(id elementID) (hash delta.Digest, is bool) {
	if c, changed := t.changed[id]; changed {
		return c.hash, !c.gone
	}
	at, is := slices.BinarySearchFunc(t.list, id, func(e hashEntry, id elementID) int { return cmp.Compare(e.id, id) })
	if !is {
		return hash, false
	}
	return t.list[at].hash, true
}

func (t *hashTable) set(id elementID, hash delta.Digest) {
	if _, is := t.find(id); !is {
		t.length++
	}
	t.changed[id] = hashChange{hash: hash}
	t.merge()
}

func (t *hashTable) remove(id elementID) {
	if _, is := t.find(id); is {
		t.length--
	}
	t.changed[id] = hashChange{gone: true}
	t.merge()
}

// merge makes the changes a part of the list, once there are many.
func (t *hashTable) merge() {
	if len(t.changed) < mergeAfter {
		return
	}
	list := make([]hashEntry, 0, t.length)
	for _, e := range t.list {
		if _, changed := t.changed[e.id]; !changed {
			list = append(list, e)
		}
	}
	for id, c := range t.changed {
		if !c.gone {
			list = append(list, hashEntry{id, c.hash})
		}
	}
	*t, _ = newHashTable(list) // the ids were apart before
}
