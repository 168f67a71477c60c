package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
	"nodeagent/internal/fault"
	"nodeagent/internal/grant"
	"nodeagent/store"
	"nodeagent/xray/state"
)

// world is a Core's document, as a model that is edited.
type world struct {
	revision int64
	ports    map[string]int            // by inbound
	clients  map[string]map[string]int // the secret, by inbound and key; wrongSecret for one that is refused
	refs     map[string]int64          // clientMap
	egress   int                       // of the outbound
	limits   map[string]map[string]int // by inbound and key
	mtproto  map[string]int            // secrets, by key
	bounds   map[string]int            // of MTProto, as limits, by key
	protocol map[string]string         // of the inbounds
}

const (
	wrongSecret = 9
	grantLimit  = 3 // the first limit of a client that has a grant
)

// grants are the grants of clients with the limits from grantLimit on.
var grants = []map[string]any{
	{"id": "g", "bytes": 1 << 40, "expiresAt": "2100-01-01T00:00:00Z"},
	{"id": "h", "bytes": 1 << 40, "expiresAt": "2100-01-01T00:00:00Z"},
	{"id": "g", "bytes": 1 << 41, "expiresAt": "2100-01-01T00:00:00Z"},
}

// bound gives a client a limit.
func bound(client map[string]any, limit int) {
	switch {
	case limit >= grantLimit:
		client["grant"] = grants[limit-grantLimit]
	case limit > 0:
		client["limitIps"] = limit
	}
}

func newWorld() *world {
	w := &world{ports: map[string]int{}, clients: map[string]map[string]int{}, refs: map[string]int64{}, limits: map[string]map[string]int{}, mtproto: map[string]int{}, bounds: map[string]int{}, protocol: map[string]string{"in-1": "vless", "in-2": "trojan", "in-3": "socks", "in-5": "wireguard", "in-6": "http"}}
	for tag := range w.protocol {
		w.addInbound(tag)
	}
	return w
}

func (w *world) addInbound(tag string) {
	w.ports[tag] = 1000 * int(tag[3]-'0')
	w.clients[tag], w.limits[tag] = map[string]int{"a": 1, "b": 2}, map[string]int{}
	w.refs["a"], w.refs["b"] = 1, 2
}

func (w *world) body() []byte {
	refs := map[string]wire.ClientRef{}
	for key, user := range w.refs {
		refs[key] = wire.ClientRef{UserID: user}
	}
	var inbounds []any
	for _, tag := range slices.Sorted(maps.Keys(w.clients)) {
		list := []any{}
		for _, key := range slices.Sorted(maps.Keys(w.clients[tag])) {
			list = append(list, w.client(tag, key))
		}
		settings := map[string]any{"clients": list}
		switch w.protocol[tag] {
		case "socks":
			settings = map[string]any{"auth": "password", "accounts": list}
		case "http":
			slices.Reverse(list) // an order that is not that of the users
			settings = map[string]any{"accounts": list}
		case "wireguard":
			settings = map[string]any{"peers": list}
		}
		inbounds = append(inbounds, map[string]any{"tag": tag, "protocol": w.protocol[tag], "port": w.ports[tag], "settings": settings})
	}
	service := map[string]any{
		"inbounds": inbounds, "outbounds": []any{map[string]any{"tag": "direct", "protocol": "freedom", "sendThrough": fmt.Sprintf("127.0.0.%d", w.egress+1)}},
		"routing": map[string]any{"rules": []any{map[string]any{"user": []string{"a", "c"}, "outboundTag": "direct"}}},
	}
	services := map[string]any{"xray": service}
	if len(w.mtproto) > 0 {
		var list []any
		for _, key := range slices.Sorted(maps.Keys(w.mtproto)) {
			client := map[string]any{"id": key, "secret": fmt.Sprintf("%032x", w.mtproto[key])}
			bound(client, w.bounds[key])
			list = append(list, client)
		}
		services["mtproto"] = map[string]any{"inbounds": []any{map[string]any{"tag": "mt-4", "port": 4000, "nodeProtocolId": 4, "modes": map[string]bool{"secure": true}, "clients": list}}}
	}
	raw, err := json.Marshal(map[string]any{"revision": w.revision, "clientMap": refs, "services": services})
	if err != nil {
		panic(err)
	}
	return raw
}

func (w *world) client(tag, key string) map[string]any {
	secret := w.clients[tag][key]
	c := map[string]any{"email": key}
	bound(c, w.limits[tag][key])
	switch w.protocol[tag] {
	case "vless":
		c["id"] = fmt.Sprintf("%08d-1111-4111-8111-%012d", secret, key[0])
		if secret == wrongSecret {
			c["id"] = "no uuid"
		}
	case "trojan":
		c["password"] = fmt.Sprintf("secret %d of %s", secret, key)
	case "wireguard":
		c["publicKey"] = base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%032d", 1000*secret+int(key[0])))
		c["allowedIPs"] = []string{fmt.Sprintf("10.0.%d.%d/32", secret, key[0])}
		if secret == wrongSecret {
			c["allowedIPs"] = []string{"no address"}
		}
	default:
		c["user"], c["pass"] = key, fmt.Sprintf("secret %d", secret)
	}
	return c
}

// edit changes the document: mostly its clients.
func (w *world) edit(t *rapid.T) {
	w.revision++
	tag := rapid.SampledFrom([]string{"in-1", "in-1", "in-2", "in-3", "in-5", "in-6"}).Draw(t, "inbound")
	key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key")
	clients := w.clients[tag]
	switch what := rapid.IntRange(0, 20).Draw(t, "edit"); {
	case what < 4 && clients != nil:
		clients[key], w.refs[key] = rapid.IntRange(1, 2).Draw(t, "secret"), rapid.Int64Range(1, 3).Draw(t, "user")
	case what < 6 && clients != nil:
		delete(clients, key)
	case what == 6: // from all inbounds
		for _, of := range w.clients {
			delete(of, key)
		}
		delete(w.refs, key)
		delete(w.mtproto, key)
	case what == 7:
		w.refs[key] = rapid.Int64Range(1, 3).Draw(t, "user")
	case what == 8:
		delete(w.refs, key) // clients that stay belong to nobody
	case what == 9 && clients != nil:
		clients[key] = wrongSecret
	case what == 10 && clients != nil:
		w.limits[tag][key] = w.limit(t)
	case what == 11:
		w.mtproto[key] = rapid.IntRange(1, 2).Draw(t, "secret")
	case what == 12:
		w.egress++
	case what == 13 && clients != nil:
		w.ports[tag]++
	case what == 14:
		if clients == nil {
			w.addInbound(tag)
		} else {
			delete(w.clients, tag)
		}
	case what > 16: // on all inbounds, as our Core does
		limit := w.limit(t)
		for tag := range w.clients {
			w.limits[tag][key] = limit
		}
		w.bounds[key] = limit
	case what == 16:
		w.bounds[key] = w.limit(t)
	}
}

func (w *world) limit(t *rapid.T) int {
	return rapid.IntRange(0, grantLimit+len(grants)-1).Draw(t, "limit")
}

// swapped is the document of another Core, or of one that was restored, under the revision and the ETag
// that the node knows.
func (w *world) swapped(t *rapid.T) *world {
	other := newWorld()
	for range rapid.IntRange(0, 4).Draw(t, "edits of the other Core") {
		other.edit(t)
	}
	other.revision = w.revision
	return other
}

// leads reports whether a delta leads from a document to what it promises: also from another one than it was
// made for, where they differ in nothing but what the delta changes.
func leads(t *rapid.T, from []byte, d *delta.Delta) bool {
	base, err := delta.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	_, err = delta.Apply(base, d)
	return err == nil
}

func (w *world) etag() string { return fmt.Sprintf("%q", fmt.Sprint(w.revision)) }

// deltaFrom is the delta of a Core's that knows both documents.
func deltaFrom(t interface{ Fatal(args ...any) }, base, target []byte, baseTag, tag string) *delta.Delta {
	from, err1 := delta.Read(base)
	to, err2 := delta.Read(target)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	d := delta.Between(from, to)
	d.Base, d.ETag = baseTag, tag
	return d
}

// nodeInFolder is a node that can be started again.
type nodeInFolder struct {
	*node
	dir   string
	fails func(state.State) error
	build string
	moved *fakeCounters // outlives the daemon
}

func (n *nodeInFolder) start(t *testing.T, rt *rapid.T) {
	ahead := ReadAhead(n.dir, func() string { return n.build })
	db, err := store.Open(n.dir)
	if err != nil {
		rt.Fatal(err)
	}
	n.node = newNode(t, db)
	if n.moved == nil {
		n.moved = n.counters
	}
	n.counters, n.Agent.counters = n.moved, n.moved
	n.engine.fail, n.compareFrom, n.mergeFrom, n.parsedFrom, n.Agent.build, n.ahead = n.fails, 0, 5, 0, n.build, ahead
	n.restore(context.Background())
	n.applyPending(context.Background())
}

// stop ends the node: as a daemon that is stopped where it keeps what it has parsed, and otherwise as
// one that is killed.
func (n *nodeInFolder) stop(t *rapid.T) {
	if n.build != "" {
		n.settleStore(time.Now())
		n.keepParsed()
		n.keepHeld()
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// granted yields the grants of the clients that the node lets in, with the clients' keys.
func (n *nodeInFolder) granted() iter.Seq2[string, *grant.Grant] {
	return func(yield func(key string, g *grant.Grant) bool) {
		for _, tag := range n.running.xray.Tags() {
			for _, c := range n.running.xray.Inbounds[tag].Clients {
				if c.Grant != nil && !yield(c.Key, c.Grant) {
					return
				}
			}
		}
		for _, in := range n.running.mtproto.Inbounds {
			for _, c := range in.Clients {
				if c.Grant != nil && !yield(c.ID, c.Grant) {
					return
				}
			}
		}
	}
}

// move moves some bytes of each person with a grant, and reads the counters.
func (n *nodeInFolder) move(t *rapid.T) {
	of := map[uint32]bool{}
	for _, g := range n.granted() {
		of[g.Slot] = true
	}
	for slot := range of {
		n.counters.add(slot, 1000, 0)
	}
	if err := n.store.Collect(time.Now(), n.counters); err != nil {
		t.Fatal(err)
	}
}

// grantText says which grant it is, how much of it is left, and whether its slot is its own and in use.
func (n *nodeInFolder) grantText(key string, g *grant.Grant) string {
	if g == nil {
		return "no grant"
	}
	slot, known := n.store.Slot(store.Owner{Engine: store.EngineGrant, Tag: g.ID, Key: key})
	used, _ := n.counters.Read(g.Slot)
	return fmt.Sprintf("grant %s of %d, %d left, slot %v", g.ID, g.Bytes, g.Until-int64(used), known && slot == g.Slot && n.inUse.has(slot))
}

// watched is what grantWatch knows.
func (n *nodeInFolder) watched(t *rapid.T) string {
	inUse := map[uint32]bool{}
	for _, of := range n.grants.all {
		for _, g := range of {
			inUse[g.same[0].Slot] = true
		}
	}
	for _, slot := range n.store.Slots() {
		if owner, _ := n.store.Owner(slot); owner.Engine == store.EngineGrant && n.inUse.has(slot) != inUse[slot] {
			t.Fatalf("the grant %q of %q is in use: %v; watched: %v", owner.Tag, owner.Key, n.inUse.has(slot), inUse[slot])
		}
	}
	clients := map[string]int{}
	for key, g := range n.granted() {
		clients[fmt.Sprintf("%s of %s, slot %d", g.ID, key, g.Slot)]++
	}
	watched := map[string]int{}
	for key, of := range n.grants.all {
		for _, g := range of {
			watched[fmt.Sprintf("%s of %s, slot %d", g.owner.Tag, key, g.same[0].Slot)] += len(g.clients)
		}
	}
	if !maps.Equal(clients, watched) {
		t.Fatalf("grants of clients: %v; watched: %v", clients, watched)
	}
	return fmt.Sprint(len(watched), " grants")
}

// summary is all that a node has of a document.
func (n *nodeInFolder) summary(t *rapid.T) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	add("etag %s", n.heldETag())
	if revision := n.sync.runningRevision(); revision != nil {
		add("revision %d", *revision)
	}
	if refused := n.sync.refusedConfig(); refused != nil {
		for _, p := range refused.parts {
			add("refused %s %s %s", p.Kind, p.Tag, p.Reason)
		}
	}
	add("routing %s, outbounds %d", n.running.xray.Routing, len(n.running.xray.Outbounds))
	for _, tag := range n.running.xray.Tags() {
		in := n.running.xray.Inbounds[tag]
		add("inbound %s %s", tag, in.Config)
		for _, c := range in.Clients {
			slot, known := n.store.Slot(store.Owner{Engine: store.EngineXray, Tag: tag, Key: c.Key})
			owner, _ := n.store.Owner(c.Slot)
			who, _ := json.Marshal(owner.Attribution)
			add("client %s %s %s %v %s %v %s %s slot %v", c.Email, c.Key, c.Account, c.Limits, n.grantText(c.Key, c.Grant), c.Tied, c.Group, who, known && slot == c.Slot && n.inUse.has(slot))
		}
	}
	for _, in := range n.running.mtproto.Inbounds {
		for _, c := range in.Clients {
			owner, _ := n.store.Owner(c.Slot)
			who, _ := json.Marshal(owner.Attribution)
			add("mtproto %s %s %s %d %s", c.ID, c.Secret, who, c.LimitIPs, n.grantText(c.ID, c.Grant))
		}
	}
	add("watched %s", n.watched(t))
	history, err := n.store.History()
	if err != nil {
		t.Fatal(err)
	}
	history, body, err := settled(history, true)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		digest, err := delta.Of(body)
		if err != nil {
			t.Fatal(err)
		}
		add("document %s, current %d %s", digest, history.Current.Revision, history.Current.ETag)
		prints := slices.Collect(slices.Chunk(history.Admitted, 8))
		slices.SortFunc(prints, slices.Compare)
		add("admitted %x, pending %v", slices.Concat(prints...), history.Pending != nil)
		if n.held != nil && n.held.etag == history.Current.ETag {
			if n.held.digest != digest {
				t.Fatalf("the digest lies: %s, the document has %s", n.held.digest, digest)
			}
			n.holds(t, body)
		}
	}
	if len(n.engine.applied) > 0 && n.engine.applied[len(n.engine.applied)-1].Clients() != n.running.xray.Clients() {
		t.Fatal("the engine does not run what the node thinks")
	}
	return strings.Join(lines, "\n")
}

// holds checks that the node has the hash of each element of the document, and no others.
func (n *nodeInFolder) holds(t *rapid.T, body []byte) {
	elements := 0
	if err := delta.Walk(body, func(e delta.Element) error {
		elements++
		if hash, is := n.held.hashes.find(n.held.ids.of(e)); !is || hash != e.Hash() {
			t.Fatalf("the hash of %s %s %s is %v %v", e.Kind, e.Inbound, e.Key, hash, is)
		}
		return nil
	}); err != nil || n.held.hashes.err != nil || n.held.hashes.length != elements {
		t.Fatalf("%d hashes, want %d (%v, %v)", n.held.hashes.length, elements, err, n.held.hashes.err)
	}
}

// Whatever Core changes, and whatever fails, also where another Core, or one that was restored, has
// another document under the ETag that the node holds: a node that gets deltas, some of which are spoiled or
// lost, and one that compares whole documents and keeps what it has parsed, both of which are started
// again and again, come to the same state as one that parses each document as a whole.
func TestDeltasLeadToTheSameState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "nodes-*")
		if err != nil {
			rt.Fatal(err)
		}
		// An engine that refuses one client, and takes the others.
		stubborn := func(s state.State) error {
			for tag, in := range s.Inbounds {
				for _, c := range in.Clients {
					if tag == "in-2" && c.Key == "e" {
						return &fault.Fault{Kind: fault.Client, Tag: tag, ClientEmail: c.Email, Message: "client e is refused"}
					}
				}
			}
			return nil
		}
		byDelta, whole := &nodeInFolder{dir: dir + "/delta", fails: stubborn}, &nodeInFolder{dir: dir + "/whole", fails: stubborn}
		compares := &nodeInFolder{dir: dir + "/compares", fails: stubborn, build: "one"}
		for _, n := range []*nodeInFolder{byDelta, whole, compares} {
			n.start(t, rt)
		}
		defer func() { byDelta.stop(rt); whole.stop(rt); compares.stop(rt) }()
		w := newWorld()
		before, beforeTag := []byte(nil), ""
		for range rapid.IntRange(2, 6).Draw(rt, "steps") {
			how := rapid.IntRange(0, 9).Draw(rt, "how")
			atCore := before
			if how == 3 && before != nil {
				w = w.swapped(rt)
				atCore = w.body()
			}
			w.edit(rt)
			body := w.body()
			if how == 9 {
				byDelta.stop(rt)
				byDelta.start(t, rt)
				compares.stop(rt)
				compares.start(t, rt)
			}
			took := false
			if before != nil {
				d := deltaFrom(rt, atCore, body, beforeTag, w.etag())
				was := byDelta.summary(rt)
				switch how {
				case 0:
					d.Digest[3]++
				case 1:
					d.Base = `"unknown"`
				case 2: // an answer was lost: a document between is missing
					w.edit(rt)
					body = w.body()
					d = deltaFrom(rt, before, body, beforeTag, w.etag())
				}
				took = byDelta.takeDelta(rt.Context(), d.Append(nil))
				if took == (how < 2 || how == 3 && !leads(rt, before, d)) {
					rt.Fatalf("the delta was taken: %v, of the kind %d", took, how)
				}
				if !took && byDelta.summary(rt) != was {
					rt.Fatal("a delta that was not taken changed something")
				}
			}
			for _, n := range []*nodeInFolder{byDelta, whole} {
				if n == byDelta && took {
					continue
				}
				if next := n.tryApply(rt.Context(), body, w.etag()); next != nil {
					n.refuse(next)
				}
			}
			compares.applyFetched(rt.Context(), coreclient.Update{Body: body, ETag: w.etag(), Changed: true})
			for name, n := range map[string]*nodeInFolder{"by deltas": byDelta, "by comparing": compares} {
				if got, want := n.summary(rt), whole.summary(rt); got != want {
					rt.Fatalf("%s:\n%s\nby whole documents:\n%s", name, got, want)
				}
			}
			for _, n := range []*nodeInFolder{byDelta, whole, compares} {
				n.move(rt)
			}
			before, beforeTag = body, w.etag()
		}
	})
}
