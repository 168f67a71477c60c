package store

import (
	"hash/maphash"
	"iter"
	"slices"
)

// owners are the owners of all slots, by slot and by what identifies them. There is one for each client
// of each inbound, so that what many of them have in common is kept once, and a slot is found in a table
// of numbers. It is 70 bytes for each owner; with the texts of Owner and a map it was 200.
type owners struct {
	list   []slotOwned // by slot
	groups interned[groupID]
	kinds  interned[attributionKind]
	index  slotIndex
}

// slotOwned is what owners keeps of an Owner.
type slotOwned struct {
	key                  string
	userID, subscription int64
	expires              int64
	group                uint32 // in owners.groups; 0 for a slot without an owner
	kind                 uint32 // in owners.kinds; 0 for no attribution
}

// groupID has what many owners have in common.
type groupID struct{ engine, tag string }

// attributionKind has what many attributions have in common.
type attributionKind struct {
	nodeProtocolID  int64
	protocol        string
	hasSubscription bool
}

// interned numbers values, from 1. A number stands for its value while something holds it, and may
// stand for another one afterwards: each grant is a group of its own, and Core renews grants for ever.
type interned[V comparable] struct {
	values  []holdings[V] // by number, from 1
	numbers map[V]uint32
	free    []uint32
	last    uint32 // the number that hold returned last: the next value is often the same; 0 for none
}

type holdings[V comparable] struct {
	value V
	n     uint32 // how many hold it
}

// find returns the number of a value; 0 where it has none.
func (i *interned[V]) find(v V) uint32 { return i.numbers[v] }

// hold returns the number of a value, which it gets if it has none. release is to follow.
func (i *interned[V]) hold(v V) uint32 {
	if i.last != 0 && i.values[i.last-1].value == v {
		i.values[i.last-1].n++
		return i.last
	}
	number := i.find(v)
	if number == 0 {
		if i.numbers == nil {
			i.numbers = map[V]uint32{}
		}
		if last := len(i.free) - 1; last >= 0 {
			number, i.free = i.free[last], i.free[:last]
		} else {
			i.values = append(i.values, holdings[V]{})
			number = uint32(len(i.values))
		}
		i.values[number-1].value, i.numbers[v] = v, number
	}
	i.values[number-1].n++
	i.last = number
	return number
}

// release undoes one hold. The number 0 is held by nothing.
func (i *interned[V]) release(number uint32) {
	if number == 0 {
		return
	}
	h := &i.values[number-1]
	if h.n--; h.n > 0 {
		return
	}
	delete(i.numbers, h.value)
	*h = holdings[V]{}
	i.free = append(i.free, number)
	if i.last == number {
		i.last = 0
	}
}

func (i *interned[V]) value(number uint32) V { return i.values[number-1].value }

// next is the first slot that was never given out.
func (o *owners) next() uint32 { return uint32(len(o.list)) }

func (o *owners) owned(slot uint32) bool { return slot < o.next() && o.list[slot].group != 0 }

// all yields the slots that have an owner, in ascending order.
func (o *owners) all() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for slot := range o.list {
			if o.list[slot].group != 0 && !yield(uint32(slot)) {
				return
			}
		}
	}
}

// slotOf returns the slot of an owner.
func (o *owners) slotOf(owner Owner) (slot uint32, known bool) {
	group := o.groups.find(groupID{owner.Engine, owner.Tag})
	if group == 0 {
		return 0, false
	}
	return o.index.find(o.list, group, owner.Key)
}

// owns reports whether the slot is that of the owner. If it is, the text of the owner's key is used
// from then on: a configuration that has the same text keeps it once. That may be a part of a longer text,
// which lives as long as the owner then: see agent/parsed.go.
func (o *owners) owns(owner Owner, slot uint32) bool {
	if !o.owned(slot) {
		return false
	}
	owned := &o.list[slot]
	if owned.key != owner.Key || o.groups.value(owned.group) != (groupID{owner.Engine, owner.Tag}) {
		return false
	}
	owned.key = owner.Key
	return true
}

// owner returns the owner of a slot that has one.
func (o *owners) owner(slot uint32) Owner {
	owned, group := &o.list[slot], o.group(slot)
	return Owner{Engine: group.engine, Tag: group.tag, Key: owned.key, Attribution: o.attribution(owned), Expires: owned.expires}
}

func (o *owners) attribution(owned *slotOwned) *Attribution {
	if owned.kind == 0 {
		return nil
	}
	kind := o.kinds.value(owned.kind)
	a := &Attribution{UserID: owned.userID, NodeProtocolID: kind.nodeProtocolID, Protocol: kind.protocol}
	if kind.hasSubscription {
		a.SubscriptionID = new(owned.subscription)
	}
	return a
}

func (o *owners) group(slot uint32) groupID { return o.groups.value(o.list[slot].group) }

func (o *owners) grant(slot uint32) bool { return o.group(slot).engine == EngineGrant }

// outbound tells whether the slot counts an outbound and not a client.
func (o *owners) outbound(slot uint32) bool { return o.list[slot].key == "" }

// row returns the row in which the slot is accounted; false for one that is attributed to no user.
func (o *owners) row(slot uint32) (row rowKey, is bool) {
	owned := &o.list[slot]
	if owned.kind == 0 {
		return row, false
	}
	kind := o.kinds.value(owned.kind)
	return rowKey{userID: owned.userID, subscriptionID: owned.subscription, nodeProtocolID: kind.nodeProtocolID, hasSubscription: kind.hasSubscription}, true
}

// sameAttribution reports whether owner, whose slot it is, has the attribution that the slot has.
func (o *owners) sameAttribution(slot uint32, owner Owner) bool {
	is, kind, attributed := attributionOf(owner)
	owned := &o.list[slot]
	if attributed {
		if is.kind = o.kinds.find(kind); is.kind == 0 {
			return false
		}
	}
	return owned.kind == is.kind && owned.userID == is.userID && owned.subscription == is.subscription && owned.expires == is.expires
}

// attributionOf returns the parts of an owner that may change while it keeps its slot. The number of the
// kind is not set.
func attributionOf(owner Owner) (is slotOwned, kind attributionKind, attributed bool) {
	is.expires = owner.Expires
	a := owner.Attribution
	if a == nil {
		return is, kind, false
	}
	is.userID = a.UserID
	if a.SubscriptionID != nil {
		is.subscription = *a.SubscriptionID
	}
	return is, attributionKind{nodeProtocolID: a.NodeProtocolID, protocol: a.Protocol, hasSubscription: a.SubscriptionID != nil}, true
}

// add notes that a slot was given out. It changes nothing, and returns the slot that the owner has, if it
// has one already.
func (o *owners) add(slot uint32, owner Owner) (has uint32, twice bool) {
	group := o.groups.hold(groupID{owner.Engine, owner.Tag})
	o.index.reserve(o.list, o.index.used+1)
	at, twice := o.index.search(o.list, group, owner.Key)
	if twice {
		o.groups.release(group)
		return o.index.table[at] - 1, true
	}
	for slot >= o.next() {
		o.list = append(o.list, slotOwned{})
	}
	o.list[slot].key, o.list[slot].group = owner.Key, group
	o.set(slot, owner)
	o.index.table[at] = slot + 1
	o.index.used++
	return slot, false
}

// reserve makes room for slots below next.
func (o *owners) reserve(next int) {
	o.list = slices.Grow(o.list, max(0, next-len(o.list)))
	o.index.reserve(o.list, next)
}

// set notes the present attribution of a slot's owner.
func (o *owners) set(slot uint32, owner Owner) {
	is, kind, attributed := attributionOf(owner)
	if attributed {
		is.kind = o.kinds.hold(kind)
	}
	owned := &o.list[slot]
	o.kinds.release(owned.kind)
	owned.kind, owned.userID, owned.subscription, owned.expires = is.kind, is.userID, is.subscription, is.expires
}

// remove notes that a slot was given back.
func (o *owners) remove(slot uint32) {
	o.index.remove(o.list, slot)
	o.groups.release(o.list[slot].group)
	o.kinds.release(o.list[slot].kind)
	o.list[slot] = slotOwned{}
}

// fit gives memory back that add has got for owners to come, if it is much.
func (o *owners) fit() {
	if cap(o.list)-len(o.list) > len(o.list)/64 {
		o.list = slices.Clip(slices.Clone(o.list))
	}
}

// slotIndex finds slots by their owners: a hash table with open addressing and linear probing, whose
// entries are slots, plus one; 0 is a free entry. Its size is a power of two, and at most three quarters
// of it are used.
type slotIndex struct {
	seed  maphash.Seed
	table []uint32
	used  int
}

// home is the entry at which the search for an owner begins.
func (x *slotIndex) home(group uint32, key string) uint32 {
	const spread = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio (Knuth, volume 3, section 6.4)
	return uint32(maphash.String(x.seed, key)+uint64(group)*spread) & uint32(len(x.table)-1)
}

// search returns the entry of an owner, or else the free entry at which the search for it ends. The table
// must not be empty.
func (x *slotIndex) search(list []slotOwned, group uint32, key string) (at uint32, known bool) {
	mask := uint32(len(x.table) - 1)
	for at = x.home(group, key); x.table[at] != 0; at = (at + 1) & mask {
		if owned := &list[x.table[at]-1]; owned.group == group && owned.key == key {
			return at, true
		}
	}
	return at, false
}

func (x *slotIndex) find(list []slotOwned, group uint32, key string) (slot uint32, known bool) {
	if x.used == 0 {
		return 0, false
	}
	at, known := x.search(list, group, key)
	if !known {
		return 0, false
	}
	return x.table[at] - 1, true
}

// reserve makes room for so many entries together. The owners of those that there are stand in list.
func (x *slotIndex) reserve(list []slotOwned, entries int) {
	size := max(16, len(x.table))
	for entries*4 > size*3 {
		size *= 2
	}
	if size == len(x.table) {
		return
	}
	before := x.table
	if before == nil {
		x.seed = maphash.MakeSeed()
	}
	x.table = make([]uint32, size)
	for _, entry := range before {
		if entry != 0 {
			owned := &list[entry-1]
			at, _ := x.search(list, owned.group, owned.key)
			x.table[at] = entry
		}
	}
}

// remove takes out a slot, whose owner is still in list. The entries after it, up to a free one, move
// back where the search for them would end at the gap (Knuth, volume 3, section 6.4, algorithm R).
func (x *slotIndex) remove(list []slotOwned, slot uint32) {
	mask := uint32(len(x.table) - 1)
	gap := x.home(list[slot].group, list[slot].key)
	for x.table[gap] != slot+1 {
		gap = (gap + 1) & mask
	}
	for at := (gap + 1) & mask; x.table[at] != 0; at = (at + 1) & mask {
		owned := &list[x.table[at]-1]
		if home := x.home(owned.group, owned.key); (at-home)&mask >= (at-gap)&mask {
			x.table[gap] = x.table[at]
			gap = at
		}
	}
	x.table[gap] = 0
	x.used--
}
