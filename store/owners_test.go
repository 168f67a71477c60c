package store

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// The owners of slots are found as in a map, whatever is added, changed and removed before.
func TestOwnersAreFoundAsInAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type id struct{ engine, tag, key string }
		var have owners
		bySlot, slots := map[uint32]Owner{}, map[id]uint32{}
		draw := func() Owner {
			o := Owner{
				Engine: rapid.SampledFrom([]string{EngineXray, EngineTelemt, EngineGrant}).Draw(t, "engine"),
				Tag:    rapid.SampledFrom([]string{"in-1", "in-2"}).Draw(t, "tag"),
				Key:    fmt.Sprint(rapid.IntRange(0, 40).Draw(t, "key")),
			}
			if o.Engine == EngineGrant {
				o.Expires = rapid.Int64().Draw(t, "expires")
			} else if rapid.Bool().Draw(t, "attributed") {
				o.Attribution = &Attribution{UserID: rapid.Int64().Draw(t, "user"), NodeProtocolID: rapid.Int64Range(0, 2).Draw(t, "inbound"), Protocol: "vless"}
				if rapid.Bool().Draw(t, "subscribed") {
					o.Attribution.SubscriptionID = new(rapid.Int64().Draw(t, "subscription"))
				}
			}
			return o
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(*rapid.T) {
				o := draw()
				slot, known := slots[id{o.Engine, o.Tag, o.Key}]
				if known {
					have.set(slot, o)
				} else {
					for bySlot[slot].Engine != "" {
						slot++
					}
					have.add(slot, o)
				}
				bySlot[slot], slots[id{o.Engine, o.Tag, o.Key}] = o, slot
			},
			"remove": func(*rapid.T) {
				o := draw()
				if slot, known := slots[id{o.Engine, o.Tag, o.Key}]; known {
					have.remove(slot)
					delete(bySlot, slot)
					delete(slots, id{o.Engine, o.Tag, o.Key})
				}
			},
			"": func(t *rapid.T) {
				asked := draw()
				slot, known := have.slotOf(asked)
				if want, is := slots[id{asked.Engine, asked.Tag, asked.Key}]; known != is || slot != want {
					t.Fatalf("%+v has the slot %d, %v, want %d, %v", asked, slot, known, want, is)
				}
				if known && have.sameAttribution(slot, asked) != reflect.DeepEqual(asked, bySlot[slot]) {
					t.Fatalf("whether %+v has the attribution of %+v is told wrongly", asked, bySlot[slot])
				}
				n := 0
				for slot := range have.all() {
					n++
					want := bySlot[slot]
					if got := have.owner(slot); !reflect.DeepEqual(got, want) {
						t.Fatalf("slot %d has %+v, want %+v", slot, got, want)
					}
					if found, known := have.slotOf(want); !known || found != slot || !have.owns(want, slot) || have.owns(asked, slot) != (asked.Engine == want.Engine && asked.Tag == want.Tag && asked.Key == want.Key) {
						t.Fatalf("the owner of slot %d is not found", slot)
					}
				}
				groups, kinds := map[groupID]uint32{}, map[attributionKind]uint32{}
				for _, o := range bySlot {
					groups[groupID{o.Engine, o.Tag}]++
					if _, kind, attributed := attributionOf(o); attributed {
						kinds[kind]++
					}
				}
				for id, n := range groups {
					if h := have.groups.values[have.groups.find(id)-1]; h.n != n {
						t.Fatalf("group %+v is held %d times, want %d", id, h.n, n)
					}
				}
				for kind, n := range kinds {
					if h := have.kinds.values[have.kinds.find(kind)-1]; h.n != n {
						t.Fatalf("kind %+v is held %d times, want %d", kind, h.n, n)
					}
				}
				if len(have.groups.numbers) != len(groups) || len(have.kinds.numbers) != len(kinds) {
					t.Fatalf("there are %d groups and %d kinds, want %d and %d", len(have.groups.numbers), len(have.kinds.numbers), len(groups), len(kinds))
				}
				if n != len(bySlot) || have.index.used != n {
					t.Fatalf("%d slots have an owner, and %d are found, want %d", n, have.index.used, len(bySlot))
				}
			},
		})
	})
}

// Grants and inbounds that come and go leave nothing behind: each has a group or a kind of its own.
func TestOwnersThatGoLeaveNothingBehind(t *testing.T) {
	var have owners
	const atOnce, renewals = 100, 100
	owner := func(slot, n int) Owner {
		if slot%2 == 0 {
			return Owner{Engine: EngineGrant, Tag: fmt.Sprint("grant-", slot, "-", n), Key: fmt.Sprint("client-", slot), Expires: int64(n)}
		}
		return Owner{Engine: EngineXray, Tag: "in", Key: fmt.Sprint("client-", slot), Attribution: &Attribution{UserID: 1, NodeProtocolID: int64(slot + n*atOnce)}}
	}
	for n := range renewals {
		for slot := range atOnce {
			switch {
			case n == 0:
				have.add(uint32(slot), owner(slot, n))
			case slot%2 == 0:
				have.remove(uint32(slot))
				have.add(uint32(slot), owner(slot, n))
			default:
				have.set(uint32(slot), owner(slot, n))
			}
		}
	}
	for slot := range atOnce {
		if got, want := have.owner(uint32(slot)), owner(slot, renewals-1); !reflect.DeepEqual(got, want) {
			t.Fatalf("slot %d has %+v, want %+v", slot, got, want)
		}
	}
	// A new value has its number before the one that it replaces goes.
	if groups, kinds := len(have.groups.values), len(have.kinds.values); groups > atOnce/2+2 || kinds > atOnce/2+1 {
		t.Errorf("%d owners have %d groups and %d kinds after %d renewals", atOnce, groups, kinds, renewals)
	}
	for slot := range atOnce {
		have.remove(uint32(slot))
	}
	if groups, kinds := len(have.groups.numbers), len(have.kinds.numbers); groups+kinds > 0 {
		t.Errorf("no owner is left, and %d groups and %d kinds are", groups, kinds)
	}
}
