package store

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// Whatever an owner is: it is read as encoding/json reads it, in the fast way or in the other one.
func TestOwnersAreReadAsJSON(t *testing.T) {
	fast := 0
	var reader ownerReader // reads them all, as at a start
	rapid.Check(t, func(t *rapid.T) {
		owner := Owner{Engine: EngineXray, Tag: rapid.SampledFrom([]string{"in-1", `in"1`, "ю", "<in>"}).Draw(t, "tag"), Key: rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z]{0,5}@x`)).Draw(t, "key")}
		if rapid.Bool().Draw(t, "attributed") {
			owner.Attribution = &Attribution{UserID: rapid.Int64().Draw(t, "user"), NodeProtocolID: 4, Protocol: "vless"}
			if id := rapid.Int64().Draw(t, "subscription"); id > 0 {
				owner.Attribution.SubscriptionID = &id
			}
		}
		if rapid.Bool().Draw(t, "grant") {
			owner.Engine, owner.Expires = EngineGrant, 5
		}
		key := bigEndian32(7)
		raw, err := encode(bucketSlots, key, owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, plain := reader.plain(raw); plain {
			fast++
		}
		var got, want Owner
		if err := reader.decode(key, raw, &got); err != nil {
			t.Fatal(err)
		}
		if err := decode(bucketSlots, key, raw, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is read as %+v, want %+v", raw, got, want)
		}
		raw[rapid.IntRange(0, len(raw)-1).Draw(t, "damaged")] ^= 1
		if reader.decode(key, raw, &got) == nil && decode(bucketSlots, key, raw, &want) != nil {
			t.Fatalf("%s is read, though it is damaged", raw)
		}
	})
	if fast == 0 {
		t.Error("no owner was read in the fast way")
	}
}
