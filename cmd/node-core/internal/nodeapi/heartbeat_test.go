package nodeapi

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

func TestHeartbeatIsHeldUntilThereIsSomething(t *testing.T) {
	c := newCore(t)
	held := func(revision int64, wait string) (wire.HeartbeatResponse, time.Duration) {
		began := time.Now()
		var h wire.HeartbeatResponse
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": c.key, "Prefer": wait}, fmt.Sprintf(`{"revision":%d}`, revision)), &h)
		return h, time.Since(began)
	}
	if h, _ := held(0, "wait=30"); !h.NeedSync {
		t.Error("a node that is behind was held")
	}
	newest := c.revision()
	if h, _ := held(newest, ""); h.NeedSync {
		t.Error("a node that is up to date is to sync")
	}
	if h, took := held(newest, "wait=1"); h.NeedSync || took < time.Second {
		t.Errorf("held for %s, sync %v", took, h.NeedSync)
	}
	done := make(chan wire.HeartbeatResponse)
	go func() {
		h, _ := held(newest, "respond-async, wait=60")
		done <- h
	}()
	user, err := c.store.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, nodes, err := c.store.AddSubscription(t.Context(), user.ID) // raises the revision
	if err != nil {
		t.Fatal(err)
	}
	c.hub.Changed(nodes...)
	if h := <-done; !h.NeedSync {
		t.Error("woken without a sync")
	}
}

// A node that holds the newest document and runs it in part is held like one that runs it as
// a whole, and woken by the next change.
func TestHeartbeatOfANodeThatHoldsTheNewestDocument(t *testing.T) {
	c := newCore(t)
	config := c.send(http.MethodGet, wire.PathConfig, map[string]string{"x-node-auth-key": c.key}, "")
	etag := config.header.Get("ETag")
	beat := func(held, wait string) (h wire.HeartbeatResponse) {
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": c.key, "x-node-config": held, "Prefer": wait}, `{"revision":0}`), &h)
		return h
	}
	if h := beat(`"another"`, ""); !h.NeedSync || h.Held {
		t.Errorf("a node that holds an older document: %+v", h)
	}
	if h := beat(etag, ""); h.NeedSync || !h.Held {
		t.Errorf("a node that holds the newest document: %+v", h)
	}
	done := make(chan wire.HeartbeatResponse)
	go func() { done <- beat(etag, "wait=60") }()
	user, err := c.store.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, nodes, err := c.store.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	c.hub.Changed(nodes...)
	if h := <-done; !h.NeedSync {
		t.Error("woken without a sync")
	}
}

// A node that runs a revision which this Core never made, or holds another document under
// the newest revision, has to sync: the database was restored, or renders anew.
func TestHeartbeatOfANodeWithAnotherDocument(t *testing.T) {
	c := newCore(t)
	etag := c.send(http.MethodGet, wire.PathConfig, map[string]string{"x-node-auth-key": c.key}, "").header.Get("ETag")
	beat := func(revision int64, etag string) bool {
		var h wire.HeartbeatResponse
		c.want(http.StatusOK, c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": c.key, "x-node-config": etag}, fmt.Sprintf(`{"revision":%d}`, revision)), &h)
		return h.NeedSync
	}
	newest := c.revision()
	for _, test := range []struct {
		name     string
		revision int64
		etag     string
		want     bool
	}{
		{"a later revision", newest + 1, "", true},
		{"the newest revision with another document", newest, `"another"`, true},
		{"the newest document", newest, etag, false},
		{"the newest document, as a proxy that compresses names it", newest, "W/" + etag, false},
		{"no document named", newest, "", false},
	} {
		if sync := beat(test.revision, test.etag); sync != test.want {
			t.Errorf("%s: needSync %v", test.name, sync)
		}
	}
}

func TestStatusFollowsTheNode(t *testing.T) {
	c := newCore(t)
	show := func() corestore.Node {
		n, err := c.store.Node(t.Context(), "node")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c.want(http.StatusOK, c.post(wire.PathHeartbeat, "", `{"ip":"192.0.2.9","revision":0}`), nil)
	if n := show(); n.Status != "online" || n.IP != "192.0.2.9" || n.LastSeenAt == nil {
		t.Errorf("after a heartbeat: %+v", n)
	}
	c.want(http.StatusOK, c.post(wire.PathError, "", `{"message":"m","code":"port_in_use","details":{"tag":{"a":1}}}`), nil)
	if n := show(); n.Status != "error" || n.SyncStatus != "failed" || *n.LastError != "m" || *n.LastErrorCode != "port_in_use" {
		t.Errorf("after an error: %+v", n)
	}
	newest := fmt.Sprintf(`{"revision":%d}`, c.revision())
	c.want(http.StatusOK, c.post(wire.PathHeartbeat, "", newest), nil)
	if n := show(); n.Status != "error" {
		t.Errorf("a heartbeat right after an error made it %s", n.Status)
	}
	c.want(http.StatusOK, c.post(wire.PathApplied, "", newest), nil)
	if n := show(); n.Status != "online" || n.SyncStatus != "synced" || *n.AppliedRevision != c.revision() {
		t.Errorf("after applied: %+v", n)
	}
}
