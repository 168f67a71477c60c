package nodeapi

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
	"nodeagent/coreclient/wire/delta"
)

// deltaCore is a Core with a node that has an inbound and a client, and holds the document of them.
type deltaCore struct {
	*core
	user corestore.User
	held *delta.Document
	etag string
}

func newDeltaCore(t *testing.T) *deltaCore {
	t.Helper()
	c := &deltaCore{core: newCore(t)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: c.node, Protocol: "vless", Port: 443, Config: []byte(`{"protocol":"vless","port":443,"settings":{"decryption":"none"}}`)})
	must(err)
	c.user, err = c.store.AddUser(t.Context(), "u")
	must(err)
	c.add()
	whole := c.get("", nil)
	c.want(http.StatusOK, whole, nil)
	c.held, err = delta.Read([]byte(whole.body))
	must(err)
	c.etag = whole.header.Get("ETag")
	return c
}

// add adds a subscription, and wakes the node.
func (c *deltaCore) add() {
	c.t.Helper()
	_, nodes, err := c.store.AddSubscription(c.t.Context(), c.user.ID)
	if err != nil {
		c.t.Fatal(err)
	}
	c.hub.Changed(nodes...)
}

// get asks for the configuration.
func (c *deltaCore) get(etag string, header map[string]string) answer {
	c.t.Helper()
	all := map[string]string{"x-node-auth-key": c.key, "Accept-Encoding": "identity", "A-IM": "node-config-delta"}
	if etag != "" {
		all["If-None-Match"] = etag
	}
	maps.Copy(all, header)
	return c.send(http.MethodGet, wire.PathConfig, all, "")
}

// applies checks that a delta leads from what the node holds to the newest document.
func (c *deltaCore) applies(raw string) {
	c.t.Helper()
	d, err := delta.Decode([]byte(raw))
	if err != nil {
		c.t.Fatalf("%v: %s", err, raw)
	}
	next, err := delta.Apply(c.held, d)
	if err != nil {
		c.t.Fatal(err)
	}
	whole := c.get("", nil)
	c.want(http.StatusOK, whole, nil)
	if sum, err := delta.Of([]byte(whole.body)); err != nil || sum != next.Digest() || d.ETag != whole.header.Get("ETag") || d.Base != c.etag || d.Revision != c.revision() {
		c.t.Errorf("%v: %s leads to another document than %s", err, raw, whole.body)
	}
}

func TestConfigAnswersWithADelta(t *testing.T) {
	c := newDeltaCore(t)
	if a := c.get(c.etag, nil); a.status != http.StatusNotModified {
		t.Errorf("nothing changed: %d", a.status)
	}
	c.add()
	a := c.get(c.etag, nil)
	c.want(http.StatusIMUsed, a, nil)
	if a.header.Get("IM") != "node-config-delta" || a.header.Get("Delta-Base") != c.etag || a.header.Get("ETag") == c.etag {
		t.Errorf("headers %v", a.header)
	}
	c.applies(a.body)
	for name, a := range map[string]answer{
		"a node that does not ask":            c.get(c.etag, map[string]string{"A-IM": ""}),
		"another manipulation":                c.get(c.etag, map[string]string{"A-IM": "vcdiff, gzip"}),
		"it is refused":                       c.get(c.etag, map[string]string{"A-IM": "node-config-delta;q=0"}),
		"a document that Core does not know":  c.get(`"unknown"`, nil),
		"a node that holds nothing":           c.get("", nil),
		"a node that names several documents": c.get(c.etag+`, "other"`, nil),
	} {
		if a.status != http.StatusOK || a.header.Get("IM") != "" {
			t.Errorf("%s: status %d, IM %q", name, a.status, a.header.Get("IM"))
		}
		if _, err := delta.Of([]byte(a.body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// After a restart nothing is known.
	c.http.Close()
	_ = c.store.Close()
	c.open()
	if a := c.get(c.etag, nil); a.status != http.StatusOK {
		t.Errorf("after a restart: %d", a.status)
	}
}

// A heartbeat that is held brings the change itself, in one round trip.
func TestHeldHeartbeatBringsADelta(t *testing.T) {
	c := newDeltaCore(t)
	beat := func(header map[string]string) wire.HeartbeatResponse {
		all := map[string]string{"x-node-auth-key": c.key, "Prefer": "wait=25", "X-Node-Config": c.etag}
		maps.Copy(all, header)
		var got wire.HeartbeatResponse
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, all, `{}`), &got)
		return got
	}
	waited := make(chan wire.HeartbeatResponse, 1)
	go func() { waited <- beat(map[string]string{"A-IM": "node-config-delta"}) }()
	c.add() // before or after the heartbeat has come: the answer is the same
	got := <-waited
	if !got.OK || !got.NeedSync || len(got.Delta) == 0 {
		t.Fatalf("got %+v, want a delta", got)
	}
	c.applies(string(got.Delta))
	if got := beat(nil); !got.NeedSync || got.Delta != nil {
		t.Errorf("a node that does not ask got %+v", got)
	}
	if got := beat(map[string]string{"A-IM": "node-config-delta", "X-Node-Config": `"unknown"`}); !got.NeedSync || got.Delta != nil {
		t.Errorf("a node with an unknown document got %+v", got)
	}
	// A large change is fetched.
	var add []corestore.NewUser
	for i := range 600 {
		add = append(add, corestore.NewUser{User: corestore.User{Name: strings.Repeat("u", i+2)}, Subscriptions: make([]corestore.Subscription, 1)})
	}
	if _, err := c.store.BulkUsers(t.Context(), add, nil); err != nil {
		t.Fatal(err)
	}
	got = beat(map[string]string{"A-IM": "node-config-delta"})
	if raw, _ := json.Marshal(got); !got.NeedSync || len(raw) > maxHeartbeatDelta+200 {
		t.Errorf("the answer has %d bytes", len(raw))
	}
}
