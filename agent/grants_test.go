package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/grant"
)

// grantText is the member grant of a client; empty for none.
func grantText(id string, bytes int) string {
	if id == "" {
		return ""
	}
	return fmt.Sprintf(`,"grant":{"id":%q,"bytes":%d,"expiresAt":"2030-01-01T00:00:00Z"}`, id, bytes)
}

// grantConfig is a document in which alice has two inbounds of Xray and one of MTProto, each with a
// grant, and bob has the first inbound.
func grantConfig(first, second, mtproto string) []byte {
	return fmt.Appendf(nil, `{"revision":1,"clientMap":{"alice":{"userId":1},"bob":{"userId":2}},"services":{
		"xray":{"inbounds":[
			{"tag":"in-1","protocol":"vless","port":1,"settings":{"decryption":"none","clients":[{"email":"alice","id":"11111111-1111-4111-8111-111111111111"%s},{"email":"bob","id":"22222222-2222-4222-8222-222222222222"}]}},
			{"tag":"in-2","protocol":"socks","port":2,"settings":{"auth":"password","accounts":[{"email":"alice","user":"a","pass":"a"%s}]}}],
		"outbounds":[{"tag":"direct","protocol":"freedom"}]},
		"mtproto":{"inbounds":[{"nodeProtocolId":3,"tag":"mt-3","port":3,"modes":{"secure":true},"clients":[{"id":"alice","secret":"%032x"%s}]}]}}}`, first, second, 7, mtproto)
}

// A grant on any inbound holds on all of the person's inbounds. Who names two has the first, and the
// clients with another one are refused, alone. A grant that is wrong refuses its client alone.
func TestGrantsOfOnePerson(t *testing.T) {
	a, other := grantText("a", 10), grantText("b", 10)
	for name, c := range map[string]struct {
		body            []byte
		served, refused string
	}{
		"no grant":                   {grantConfig("", "", ""), "in-1:alice= in-1:bob= in-2:alice= mt-3:alice=", ""},
		"on all":                     {grantConfig(a, a, a), "in-1:alice=a in-1:bob= in-2:alice=a mt-3:alice=a", ""},
		"on one of Xray":             {grantConfig("", a, ""), "in-1:alice=a in-1:bob= in-2:alice=a mt-3:alice=a", ""},
		"on MTProto":                 {grantConfig("", "", a), "in-1:alice=a in-1:bob= in-2:alice=a mt-3:alice=a", ""},
		"another id":                 {grantConfig(a, other, ""), "in-1:alice=a in-1:bob= mt-3:alice=a", "in-2"},
		"another id on MTProto":      {grantConfig(a, "", other), "in-1:alice=a in-1:bob= in-2:alice=a", "mt-3"},
		"other bytes":                {grantConfig(a, a, grantText("a", 11)), "in-1:alice=a in-1:bob= in-2:alice=a", "mt-3"},
		"one that is wrong":          {grantConfig(`,"grant":{"id":"a"}`, "", ""), "in-1:bob= in-2:alice= mt-3:alice=", "in-1"},
		"one that is wrong, MTProto": {grantConfig("", "", `,"grant":7`), "in-1:alice= in-1:bob= in-2:alice=", "mt-3"},
	} {
		d, faults, err := parseConfig(c.body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var served, refused []string
		add := func(tag, key string, g *grant.Grant) {
			id := ""
			if g != nil {
				id = g.ID
			}
			served = append(served, fmt.Sprintf("%s:%s=%s", tag, key, id))
		}
		for tag, in := range d.xray.Inbounds {
			for _, client := range in.Clients {
				add(tag, client.Key, client.Grant)
				if (client.Grant != nil) != (client.Group != "") {
					t.Errorf("%s: on %s, %s has the group %q", name, tag, client.Key, client.Group)
				}
			}
		}
		for _, in := range d.mtproto.Inbounds {
			for _, client := range in.Clients {
				add(in.Tag, client.ID, client.Grant)
			}
		}
		for _, f := range faults {
			refused = append(refused, f.Tag)
			if !strings.Contains(f.Message, "grant") {
				t.Errorf("%s: the message is %q", name, f.Message)
			}
		}
		slices.Sort(served)
		if have := strings.Join(served, " "); have != c.served || strings.Join(refused, " ") != c.refused {
			t.Errorf("%s: served %s, refused %v", name, have, refused)
		}
	}
}

// A grant that comes with a change is watched, also where no configuration came before.
func TestGrantWatchBeginsWithAChange(t *testing.T) {
	var w grantWatch
	g := &grant.Grant{ID: "a", Bytes: 100, Until: 100, Slot: 9}
	w.change(map[string]*granted{"alice": {same: []*grant.Grant{g}, clients: []uint32{1}}})
	if due := w.look(&fakeCounters{values: map[uint32][2]uint64{9: {100, 0}}}, time.Now()); !slices.Equal(due, []uint32{1}) {
		t.Errorf("due are %v, want the rows of the grant's client", due)
	}
}

// The rows of a client whose grant is over are due at once and a little later; once it is renewed, and
// over again, they are due again.
func TestGrantWatch(t *testing.T) {
	counters, now := &fakeCounters{values: map[uint32][2]uint64{}}, time.Now()
	var w grantWatch
	look := func(want string) {
		t.Helper()
		due := w.look(counters, now)
		slices.Sort(due)
		if have := fmt.Sprint(due); have != want {
			t.Errorf("due are %s, want %s", have, want)
		}
	}
	g := &grant.Grant{ID: "a", Bytes: 100, Until: 100, Slot: 9, ExpiresAt: now.Add(time.Hour)}
	of := &granted{same: []*grant.Grant{g}, clients: []uint32{1, 2}}
	w.set([]*granted{of})
	counters.add(9, 99, 0)
	look("[]")
	counters.add(9, 1, 0)
	look("[1 2]")
	look("[]")
	if n := w.ended(counters, now); n != 1 {
		t.Errorf("%d persons are ended", n)
	}
	now = now.Add(lastBytes)
	look("[1 2]")
	look("[]")
	g.Until = 200
	w.set([]*granted{of})
	look("[]")
	if n := w.ended(counters, now); n != 0 {
		t.Errorf("%d persons are ended after the renewal", n)
	}
	counters.add(9, 100, 0)
	look("[1 2]")
}
