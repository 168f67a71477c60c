package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const sample = `{ "revision":17,"clientMap":{"u1":{"userId":1,"subscriptionId":2},"u2":{"userId":2,"subscriptionId":null}},
"services":{"xray":{"inbounds":[
 {"tag":"vless-1","port":443,"settings":{"decryption":"none","clients":[ {"email":"u1","id":"u1"}, {"id":"u2", "email":"u2"}]},"protocol":"vless"},
 {"protocol":"socks","settings":{"accounts":[{"user":"u1","pass":"p"}]},"tag":"socks-2"},
 {"protocol":"dokodemo-door","tag":"door"},
 {"tag":"wg","protocol":"wireguard","settings":{"peers":[{"publicKey":"PUB=","allowedIPs":["10.0.0.2"]},{"publicKey":"KEY=","email":"u2"}],"secretKey":"s"}}
],"outbounds":[{"protocol":"freedom"}],"routing":{}},
"mtproto":{"inbounds":[{"nodeProtocolId":3,"tag":"tg","clients":[{"id":"u1","secret":"00"}]}],"upstreams":[]},"later":[1]},"extra":null}`

// Digests are compared between programs: what an element is, and how it is hashed, is fixed.
func TestElements(t *testing.T) {
	var got []string
	if err := Walk([]byte(sample), func(e Element) error {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", e.Kind, e.Inbound, e.Key, e.Raw))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"member||revision|17",
		`clientMap||u1|{"userId":1,"subscriptionId":2}`,
		`clientMap||u2|{"userId":2,"subscriptionId":null}`,
		"service||xray|{}",
		"xray.member||inbounds|[]",
		`xray.inbound|vless-1||{"tag":"vless-1","port":443,"settings":{"decryption":"none","clients":[]},"protocol":"vless"}`,
		`xray.client|vless-1|u1|{"email":"u1","id":"u1"}`,
		`xray.client|vless-1|u2|{"id":"u2", "email":"u2"}`,
		`xray.inbound|socks-2||{"protocol":"socks","settings":{"accounts":[]},"tag":"socks-2"}`,
		`xray.client|socks-2|u1|{"user":"u1","pass":"p"}`,
		`xray.inbound|door||{"protocol":"dokodemo-door","tag":"door"}`,
		`xray.inbound|wg||{"tag":"wg","protocol":"wireguard","settings":{"peers":[],"secretKey":"s"}}`,
		`xray.client|wg|PUB=|{"publicKey":"PUB=","allowedIPs":["10.0.0.2"]}`,
		`xray.client|wg|u2|{"publicKey":"KEY=","email":"u2"}`,
		`xray.member||outbounds|[{"protocol":"freedom"}]`,
		"xray.member||routing|{}",
		"service||mtproto|{}",
		"mtproto.member||inbounds|[]",
		`mtproto.inbound|tg||{"nodeProtocolId":3,"tag":"tg","clients":[]}`,
		`mtproto.client|tg|u1|{"id":"u1","secret":"00"}`,
		"mtproto.member||upstreams|[]",
		"service||later|[1]",
		"member||extra|null",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	sum, err := Of([]byte(sample))
	// Made by another program from the elements above, as docs/protocol.md says.
	const fixed = "0e13dc9789451a5fc41bdda4bf6d7ca49792c3f4cb90c7e9c30ba0ba340455c1"
	if err != nil || sum.String() != fixed {
		t.Errorf("the digest is %s (%v), want %s", sum, err, fixed)
	}
	document, err := Read([]byte(sample))
	if err != nil || document.Digest() != sum {
		t.Errorf("read: %v; the digest is another one", err)
	}
}

func TestDocumentsWithoutElements(t *testing.T) {
	services := func(xray string) string { return `{"revision":1,"services":{"xray":` + xray + `}}` }
	for name, document := range map[string]string{
		"no object":                         `[]`,
		"no revision":                       `{"services":{}}`,
		"no services":                       `{"revision":1}`,
		"revision is text":                  `{"revision":"1","services":{}}`,
		"revision is written as a fraction": `{"revision":1.0,"services":{}}`,
		"a member twice":                    `{"revision":1,"services":{},"a":1,"a":2}`,
		"cut short":                         `{"revision":1,"services":{}`,
		"more behind":                       `{"revision":1,"services":{}}{}`,
		"no tag":                            services(`{"inbounds":[{}]}`),
		"a tag twice":                       services(`{"inbounds":[{"tag":"a"},{"tag":"a"}]}`),
		"a key twice":                       services(`{"inbounds":[{"tag":"a","settings":{"clients":[{"id":"x"},{"email":"x"}]}}]}`),
		"a client without key":              services(`{"inbounds":[{"tag":"a","settings":{"clients":[{"level":0}]}}]}`),
		"inbounds are text":                 services(`{"inbounds":"a"}`),
		"no UTF-8":                          "{\"revision\":1,\"services\":{},\"a\":\"\xff\"}",
	} {
		if _, err := Of([]byte(document)); !errors.Is(err, ErrNoElements) {
			t.Errorf("%s: got %v, want ErrNoElements", name, err)
		}
	}
}

func TestDigestIsASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		elements := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Element {
			return Element{Kind: Kind(rapid.String().Draw(t, "kind")), Inbound: rapid.String().Draw(t, "inbound"), Key: rapid.String().Draw(t, "key"), Raw: []byte(rapid.String().Draw(t, "raw"))}
		})).Draw(t, "elements")
		var forth, back Digest
		for _, e := range elements {
			forth = forth.Plus(e.Hash())
		}
		for _, e := range slices.Backward(elements) {
			back = back.Plus(e.Hash())
		}
		if forth != back {
			t.Fatalf("the order counts: %s, %s", forth, back)
		}
		for _, e := range elements {
			forth = forth.Minus(e.Hash())
		}
		if forth != (Digest{}) {
			t.Fatalf("all was taken away, and %s is left", forth)
		}
	})
}

// drawDocument draws a document in a form that a Core might send, white space and odd services
// included.
func drawDocument(t *rapid.T, label string) []byte {
	word := rapid.SampledFrom([]string{"a", "b", "c", "d\"", "ä"})
	value := rapid.SampledFrom([]string{`1`, `{"x": 1}`, `{"x":1}`, `[ ]`, `"<&>"`, `"\u003c"`, `null`})
	quote := func(s string) string { q, _ := json.Marshal(s); return string(q) }
	var b strings.Builder
	members := func(names ...string) {
		for _, name := range names {
			if rapid.Bool().Draw(t, label+" has "+name) {
				fmt.Fprintf(&b, `,%s:%s`, quote(name), value.Draw(t, "value"))
			}
		}
	}
	clients := func(key string) string {
		var all []string
		for _, name := range rapid.SliceOfNDistinct(word, 0, 4, rapid.ID).Draw(t, "clients") {
			all = append(all, fmt.Sprintf(`{%s:%s,"limit": %s}`, quote(key), quote(name), value.Draw(t, "limit")))
		}
		return "[ " + strings.Join(all, ",") + "]"
	}
	fmt.Fprintf(&b, `{"revision":%d`, rapid.IntRange(0, 3).Draw(t, "revision"))
	members("extra", "more")
	b.WriteString(`,"clientMap":{`)
	for i, name := range rapid.SliceOfNDistinct(word, 0, 4, rapid.ID).Draw(t, "clientMap") {
		fmt.Fprintf(&b, `%s%s:%s`, strings.Repeat(",", min(i, 1)), quote(name), value.Draw(t, "entry"))
	}
	b.WriteString(`},"services":{"other":1`)
	for _, service := range []string{Xray, MTProto} {
		switch rapid.IntRange(0, 3).Draw(t, service) {
		case 0:
			continue
		case 1:
			fmt.Fprintf(&b, `,%s:null`, quote(service))
			continue
		}
		fmt.Fprintf(&b, `,%s:{"inbounds":[`, quote(service))
		for i, tag := range rapid.SliceOfNDistinct(word, 0, 3, rapid.ID).Draw(t, "tags") {
			fmt.Fprintf(&b, `%s{"tag":%s`, strings.Repeat(",", min(i, 1)), quote(tag))
			members("port")
			switch kind := rapid.IntRange(0, 3).Draw(t, "inbound"); {
			case kind == 0:
			case service == MTProto:
				fmt.Fprintf(&b, `,"clients":%s`, clients("id"))
			case kind == 1:
				fmt.Fprintf(&b, `,"settings":{"clients":%s}`, clients("email"))
			case kind == 2:
				fmt.Fprintf(&b, `,"settings":{"peers":%s,"secretKey":"s"}`, clients("publicKey"))
			default:
				fmt.Fprintf(&b, `, "settings" : {"accounts":%s}`, clients("user"))
			}
			b.WriteString(`}`)
		}
		b.WriteString(`]`)
		members("outbounds", "dns")
		b.WriteString(`}`)
	}
	b.WriteString(`}}`)
	return []byte(b.String())
}

func read(t testing.TB, raw []byte) *Document {
	t.Helper()
	document, err := Read(raw)
	if err != nil {
		t.Fatalf("read %s: %v", raw, err)
	}
	return document
}

// A delta that went over the wire leads from its base to the elements of its target, and to nothing
// else.
func TestDeltaLeadsToItsTarget(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		raw := [][]byte{drawDocument(rt, "base"), drawDocument(rt, "target"), drawDocument(rt, "other")}
		base, target, other := read(t, raw[0]), read(t, raw[1]), read(t, raw[2])
		d := Between(base, target)
		d.Base, d.ETag = `"b"`, `"t"`
		got, err := Decode(d.Append(nil))
		if err != nil {
			rt.Fatalf("decode %s: %v", d.Append(nil), err)
		}
		was := base.Digest()
		next, err := Apply(base, got)
		if err != nil {
			rt.Fatalf("from %s to %s by %s: %v", raw[0], raw[1], d.Append(nil), err)
		}
		if base.Digest() != was {
			rt.Fatal("the base is another one now")
		}
		sum, err := Of(raw[1])
		if err != nil || next.Digest() != sum || d.Digest != sum {
			rt.Fatalf("the digests differ: %s, %s, %s (%v)", next.Digest(), sum, d.Digest, err)
		}
		body, err := next.JSON()
		if err != nil {
			rt.Fatal(err)
		}
		if again, err := Of(body); err != nil || again != sum {
			rt.Fatalf("the document %s has the digest %s (%v), want %s", body, again, err, sum)
		}
		// On another base it leads to the same elements, or to an error.
		if next, err := Apply(other, got); err == nil && next.Digest() != sum {
			rt.Fatalf("on another base it led to something else")
		} else if err != nil && !errors.Is(err, ErrMismatch) {
			rt.Fatalf("got %v, want ErrMismatch", err)
		}
	})
}

// Whatever is changed in a delta, it does not pass as the one that it was.
func TestSpoiledDeltaIsRefused(t *testing.T) {
	base, target := read(t, []byte(sample)), read(t, []byte(sample))
	target.Revision++
	target.ClientMap["u3"] = json.RawMessage(`{"userId":3,"subscriptionId":3}`)
	delete(target.ClientMap, "u2")
	in := target.Services[Xray].Inbounds["vless-1"]
	in.Clients["u3"], in.Clients["u1"] = json.RawMessage(`{"email":"u3","id":"u3"}`), json.RawMessage(`{"email":"u1","id":"u1","limitIps":1}`)
	delete(in.Clients, "u2")
	target.Services[MTProto].Members["upstreams"] = json.RawMessage(`[{"type":"direct"}]`)
	d := Between(base, target)
	d.Base, d.ETag = `"b"`, `"t"`
	whole := d.Append(nil)
	if _, err := Apply(base, d); err != nil {
		t.Fatal(err)
	}
	var passed int
	for at := range whole {
		for _, with := range []byte{'0', '7', 'x', '"', ',', ' '} {
			if whole[at] == with {
				continue
			}
			spoiled := slices.Clone(whole)
			spoiled[at] = with
			decoded, err := Decode(spoiled)
			if err != nil || decoded.Base != d.Base || decoded.ETag != d.ETag {
				continue
			}
			if next, err := Apply(base, decoded); err == nil && next.Digest() != target.Digest() {
				t.Fatalf("byte %d as %q: %s led to another document", at, with, spoiled)
			} else if err == nil {
				passed++
			}
		}
	}
	if passed > 0 {
		t.Errorf("%d spoiled deltas led to the target all the same", passed)
	}
}

// A small change has a small delta: one client more is its bytes, its entry and some hundred bytes.
func TestDeltaOfOneClientIsSmall(t *testing.T) {
	base, target := read(t, []byte(sample)), read(t, []byte(sample))
	for i := range 10_000 {
		key := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
		for _, d := range []*Document{base, target} {
			d.ClientMap[key] = json.RawMessage(`{"userId":1,"subscriptionId":1}`)
			d.Services[Xray].Inbounds["vless-1"].Clients[key] = json.RawMessage(`{"email":"` + key + `"}`)
		}
	}
	target.ClientMap["new"] = json.RawMessage(`{"userId":1,"subscriptionId":1}`)
	target.Services[Xray].Inbounds["vless-1"].Clients["new"] = json.RawMessage(`{"email":"new"}`)
	d := Between(base, target)
	if size := len(d.Append(nil)); size > 400 {
		t.Errorf("the delta has %d bytes: %s", size, d.Append(nil))
	}
	if got := slices.Collect(maps.Keys(d.Services)); len(got) != 1 {
		t.Errorf("it has the services %v", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	digest := strings.Repeat("11", 32)
	for name, raw := range map[string]string{
		"nothing":           ``,
		"no digest":         `{"base":"b","etag":"t","revision":1}`,
		"no base":           `{"etag":"t","revision":1,"digest":"` + digest + `"}`,
		"an unknown member": `{"base":"b","etag":"t","revision":1,"digest":"` + digest + `","later":1}`,
		"a short digest":    `{"base":"b","etag":"t","revision":1,"digest":"1111"}`,
		"a member twice":    `{"base":"b","base":"c","etag":"t","revision":1,"digest":"` + digest + `"}`,
	} {
		if _, err := Decode([]byte(raw)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"revision":1,"services":{"xray":{"inbounds":[{"tag":"a","settings":{"clients":[{"id":"x"}],"accounts":[1]}}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		document, err := Read(raw)
		if err != nil {
			if !errors.Is(err, ErrNoElements) {
				t.Fatalf("got %v, want ErrNoElements", err)
			}
			return
		}
		sum, err := Of(raw)
		if err != nil || document.Digest() != sum {
			t.Fatalf("%s: the document's digest is %s, that of its elements %s (%v)", raw, document.Digest(), sum, err)
		}
		body, err := document.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Of(body); err != nil || again != sum {
			t.Fatalf("%s became %s: its digest is %s (%v), want %s", raw, body, again, err, sum)
		}
	})
}

func FuzzDecode(f *testing.F) {
	base := read(f, []byte(sample))
	target := read(f, []byte(strings.ReplaceAll(sample, "u2", "u3")))
	d := Between(base, target)
	d.Base, d.ETag = `"b"`, `"t"`
	f.Add(d.Append(nil))
	d = Between(target, read(f, []byte(`{"revision":1,"services":{"mtproto":null}}`)))
	d.Base, d.ETag = `"b"`, `"t"`
	f.Add(d.Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := Decode(raw)
		if err != nil {
			return
		}
		next, err := apply(base, d)
		if err != nil {
			return
		}
		body, err := next.JSON()
		if err != nil {
			return
		}
		// The result is a document with these elements, whatever the delta promised.
		if sum, err := Of(body); err != nil || sum != next.Digest() {
			t.Fatalf("%s led to %s, whose digest is %s (%v), want %s", raw, body, sum, err, next.Digest())
		}
		again, err := Decode(d.Append(nil))
		if err != nil || again.Digest != d.Digest {
			t.Fatalf("%s became %s: %v", raw, d.Append(nil), err)
		}
	})
}
