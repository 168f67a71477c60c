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
				if n != len(bySlot) || have.index.used != n {
					t.Fatalf("%d slots have an owner, and %d are found, want %d", n, have.index.used, len(bySlot))
				}
			},
		})
	})
}
