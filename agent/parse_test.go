package agent

import (
	"strings"
	"testing"

	"nodeagent/store"
)

// Errors about the client map do not contain its keys: clients connect with them.
func TestParseTellsNoKeys(t *testing.T) {
	const key = "11111111-1111-4111-8111-111111111111"
	for name, entry := range map[string]string{
		"text for a number":   `{"userId":"17"}`,
		"too large a number":  `{"userId":99999999999999999999}`,
		"a list for a number": `{"userId":1,"subscriptionId":[]}`,
		"no object":           `7`,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseConfig([]byte(`{"revision":1,"clientMap":{"` + key + `":` + entry + `},"services":{}}`))
			if err == nil || !strings.Contains(err.Error(), "clientMap") {
				t.Fatalf("it is said %v, want where it is wrong", err)
			}
			if strings.Contains(err.Error(), key) {
				t.Errorf("it is said with the key: %v", err)
			}
		})
	}
}

// Each owner comes with the slot of what it owns: another order would bill traffic to the
// wrong person.
func TestCountedNamesEachOwnerWithItsSlot(t *testing.T) {
	d, _, err := parseConfig([]byte(`{"revision":1,"clientMap":{},"services":{
		"xray":{
			"inbounds":[
				{"tag":"b-2","protocol":"trojan","port":2,"settings":{"clients":[{"password":"z"},{"password":"a"}]}},
				{"tag":"a-1","protocol":"vless","port":1,"settings":{"decryption":"none","clients":[{"id":"11111111-1111-4111-8111-111111111111"}]}}],
			"outbounds":[{"tag":"out-1","protocol":"freedom"},{"tag":"out-2","protocol":"blackhole"}]},
		"mtproto":{"inbounds":[{"tag":"mt-3","nodeProtocolId":3,"port":3,"listen":"0.0.0.0","modes":{"secure":true},"clients":[{"id":"c1","secret":"00112233445566778899aabbccddeeff"},{"id":"c2","secret":"ff112233445566778899aabbccddeeff"}]}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var owners []store.Owner
	for owner, place := range d.counted() {
		*place = uint32(len(owners))
		owners = append(owners, owner)
	}
	has := func(slot uint32, engine, tag, key string) {
		t.Helper()
		if o := owners[slot]; o.Engine != engine || o.Tag != tag || o.Key != key {
			t.Errorf("slot %d is of %s %s %q, its owner is %s %s %q", slot, engine, tag, key, o.Engine, o.Tag, o.Key)
		}
	}
	n := 0
	for tag, in := range d.xray.Inbounds {
		for _, c := range in.Clients {
			has(c.Slot, store.EngineXray, tag, c.Key)
			n++
		}
	}
	for _, out := range d.xray.Outbounds {
		has(out.Slot, store.EngineXray, out.Tag, "")
		n++
	}
	for _, in := range d.mtproto.Inbounds {
		for _, c := range in.Clients {
			has(c.Slot, store.EngineTelemt, in.Tag, c.ID)
			n++
		}
	}
	if n != len(owners) {
		t.Errorf("%d clients and outbounds, %d have owners", n, len(owners))
	}
}
