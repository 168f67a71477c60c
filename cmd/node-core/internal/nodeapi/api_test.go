package nodeapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreclient/wire"
)

// core is a Core on a real database and a real socket.
type core struct {
	t     *testing.T
	dir   string
	store *corestore.Store
	hub   *hub.Hub
	http  *httptest.Server
	key   string // of the registered node
	node  int64
}

func newCore(t *testing.T) *core {
	t.Helper()
	c := &core{t: t, dir: t.TempDir(), hub: hub.New()}
	c.open()
	t.Cleanup(c.close)
	node, code, err := c.store.AddNode(t.Context(), "node", "eu", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c.node = node.ID
	var answer wire.RegisterResponse
	c.want(http.StatusOK, c.post(wire.PathRegister, "attempt", fmt.Sprintf(`{"code":%q,"name":"n","host":"h","ip":"192.0.2.1","region":""}`, code)), &answer)
	c.key = answer.AuthKey
	return c
}

func (c *core) open() {
	c.t.Helper()
	var err error
	if c.store, err = corestore.Open(c.t.Context(), c.dir); err != nil {
		c.t.Fatal(err)
	}
	c.http = httptest.NewServer(New(context.Background(), c.store, c.hub, slog.New(slog.DiscardHandler)).Handler())
}

func (c *core) close() {
	c.http.Close()
	if err := c.store.Close(); err != nil {
		c.t.Error(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (c *core) send(method, path string, header map[string]string, body string) answer {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.http.URL+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(raw)}
}

func (c *core) post(path, idempotencyKey, body string) answer {
	c.t.Helper()
	return c.send(http.MethodPost, path, map[string]string{"x-node-auth-key": c.key, "Idempotency-Key": idempotencyKey}, body)
}

func (c *core) want(status int, a answer, v any) {
	c.t.Helper()
	if a.status != status {
		c.t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.body), v); err != nil {
			c.t.Fatalf("%v: %s", err, a.body)
		}
	}
}

// sums are all usage, and the subscription's own counters.
func (c *core) sums() (rows int, up, down int64) {
	c.t.Helper()
	usage, err := c.store.Usage(c.t.Context(), 10_000)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, row := range usage {
		up, down = up+row.BytesUp, down+row.BytesDown
	}
	return len(usage), up, down
}

const usageBody = `{"entries":[
	{"userId":1,"subscriptionId":null,"nodeProtocolId":1,"bytesUp":10,"bytesDown":20,"recordedAt":"2026-01-02T03:04:00Z"},
	{"userId":1,"nodeProtocolId":2,"bytesUp":1,"bytesDown":2,"recordedAt":"2026-01-02T03:04:00Z"}]}`

func TestABatchCountsOnce(t *testing.T) {
	c := newCore(t)
	var together sync.WaitGroup
	for range 8 {
		together.Go(func() {
			if a := c.post(wire.PathUsage, "k", usageBody); a.status != http.StatusOK || a.body != `{"ok":true}`+"\n" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	together.Wait()
	c.close()
	c.open() // also after a restart
	c.want(http.StatusOK, c.post(wire.PathUsage, "k", usageBody), nil)
	if rows, up, down := c.sums(); rows != 2 || up != 11 || down != 22 {
		t.Errorf("%d rows, %d up, %d down", rows, up, down)
	}
	// The key is the batch's on its route: another route's is another batch.
	c.want(http.StatusOK, c.post(wire.PathOutboundUsage, "k", `{"items":[{"tag":"direct","bytesUp":5,"bytesDown":6}]}`), nil)
	// Another part of the same minute adds up.
	c.want(http.StatusOK, c.post(wire.PathUsage, "k2", usageBody), nil)
	if rows, up, _ := c.sums(); rows != 2 || up != 22 {
		t.Errorf("%d rows, %d up", rows, up)
	}
	outbounds, err := c.store.Outbounds(t.Context(), c.node)
	if err != nil || len(outbounds) != 1 || outbounds[0].TrafficBytesUp != 5 || outbounds[0].TrafficBytesDown != 6 {
		t.Errorf("outbounds %+v, %v", outbounds, err)
	}
}

// A batch counts for the user and the node though its subscription is gone, and
// one from a clock that is far off is flagged.
func TestUsageOfWhatIsGone(t *testing.T) {
	c := newCore(t)
	c.want(http.StatusOK, c.post(wire.PathUsage, "", `{"entries":[
		{"userId":77,"subscriptionId":99,"nodeProtocolId":1,"bytesUp":1,"bytesDown":2,"recordedAt":"2002-01-02T03:04:00Z"}]}`), nil)
	usage, err := c.store.Usage(t.Context(), 10)
	if err != nil || len(usage) != 1 || !usage[0].Flagged || *usage[0].SubscriptionID != 99 {
		t.Errorf("usage %+v, %v", usage, err)
	}
}

func TestSubscriptionCounters(t *testing.T) {
	c := newCore(t)
	user, err := c.store.AddUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	sub, _, err := c.store.AddSubscription(t.Context(), user.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		c.want(http.StatusOK, c.post(wire.PathUsage, fmt.Sprint("k", i), fmt.Sprintf(`{"entries":[
			{"userId":%d,"subscriptionId":%d,"nodeProtocolId":1,"bytesUp":1,"bytesDown":2,"recordedAt":"2026-01-02T03:0%d:00Z"},
			{"userId":%d,"subscriptionId":%d,"nodeProtocolId":2,"bytesUp":10,"bytesDown":20,"recordedAt":"2026-01-02T03:0%d:00Z"}]}`,
			user.ID, sub.ID, i, user.ID, sub.ID, i)), nil)
	}
	subs, err := c.store.Subscriptions(t.Context())
	if err != nil || subs[0].BytesUp != 33 || subs[0].BytesDown != 66 {
		t.Errorf("subscriptions %+v, %v", subs, err)
	}
}

func TestRefusals(t *testing.T) {
	c := newCore(t)
	entry := func(member, value string) string {
		members := map[string]string{"userId": "1", "nodeProtocolId": "1", "bytesUp": "1", "bytesDown": "1", "recordedAt": `"2026-01-02T03:04:00Z"`}
		members[member] = value
		var parts []string
		for name, v := range members {
			if v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", name, v))
			}
		}
		good := `{"userId":1,"nodeProtocolId":1,"bytesUp":1,"bytesDown":1,"recordedAt":"2026-01-02T03:04:00Z"}`
		return `{"entries":[` + good + `,{` + strings.Join(parts, ",") + `}]}`
	}
	for _, r := range []struct {
		name, path, body string
		status           int
		code, says       string
	}{
		{"no JSON", wire.PathUsage, `<html>`, 400, "invalid_json", ""},
		{"empty", wire.PathUsage, ``, 400, "invalid_json", "empty"},
		{"two values", wire.PathUsage, usageBody + `{}`, 400, "invalid_json", "follows"},
		{"no entries", wire.PathUsage, `{}`, 400, "invalid_field", "entries"},
		{"null", wire.PathUsage, `null`, 400, "invalid_field", "entries"},
		{"unknown member", wire.PathUsage, entry("more", "1"), 400, "invalid_field", "more"},
		{"no userId", wire.PathUsage, entry("userId", ""), 400, "invalid_field", "entries[1].userId"},
		{"userId that is text", wire.PathUsage, entry("userId", `"1"`), 400, "invalid_field", "userId"},
		{"subscription 0", wire.PathUsage, entry("subscriptionId", "0"), 400, "invalid_field", "entries[1].subscriptionId"},
		{"no bytesUp", wire.PathUsage, entry("bytesUp", ""), 400, "invalid_field", "entries[1].bytesUp"},
		{"negative bytes", wire.PathUsage, entry("bytesDown", "-1"), 400, "invalid_field", "entries[1].bytesDown"},
		{"bytes beyond sense", wire.PathUsage, entry("bytesUp", "9223372036854775807"), 400, "invalid_field", "entries[1].bytesUp"},
		{"a time that is none", wire.PathUsage, entry("recordedAt", `"junk"`), 400, "invalid_field", "entries[1].recordedAt"},
		{"a year that can't be written", wire.PathUsage, entry("recordedAt", `"9999-12-31T23:59:59-10:00"`), 400, "invalid_field", "entries[1].recordedAt"},
		{"too large", wire.PathUsage, `{"entries":[` + strings.Repeat(" ", maxBatchBody) + `]}`, 413, "body_too_large", ""},
		{"no tag", wire.PathOutboundUsage, `{"items":[{"bytesUp":1,"bytesDown":1}]}`, 400, "invalid_field", "items[0].tag"},
		{"an event of no kind", wire.PathSessionEvents, `{"events":[{"userId":1,"protocol":"vless","eventType":"away","occurredAt":"2026-01-02T03:04:00Z"}]}`, 400, "invalid_field", "events[0].eventType"},
		{"an address that is none", wire.PathSessionEvents, `{"events":[{"userId":1,"protocol":"vless","eventType":"online","occurredAt":"2026-01-02T03:04:00Z","ipAddress":"x"}]}`, 400, "invalid_field", "events[0].ipAddress"},
		{"no revision", wire.PathApplied, `{}`, 400, "invalid_field", "revision"},
		{"no message", wire.PathError, `{}`, 400, "invalid_field", "message"},
		{"no name", wire.PathRegister, `{"code":"x"}`, 400, "invalid_field", "it is missing"},
		{"an unknown code", wire.PathRegister, `{"code":"x","name":"n","host":"h","ip":"","region":""}`, 403, "code_unknown", ""},
		{"no such route", "/node/nope", `{}`, 404, "no_route", ""},
		{"another method", wire.PathConfig, `{}`, 405, "method_not_allowed", "GET"},
	} {
		t.Run(r.name, func(t *testing.T) {
			a := c.post(r.path, "", r.body)
			var p struct{ Code, Detail string }
			if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("no problem JSON: %s", a.body)
			}
			if a.status != r.status || p.Code != r.code || !strings.Contains(p.Detail, r.says) {
				t.Errorf("%d %+v, want %d %s %q", a.status, p, r.status, r.code, r.says)
			}
		})
	}
	if rows, _, _ := c.sums(); rows != 0 {
		t.Errorf("%d rows of refused batches are stored", rows)
	}
	for _, key := range []string{"", "nk1_wrong"} {
		if a := c.send(http.MethodPost, wire.PathHeartbeat, map[string]string{"x-node-auth-key": key}, `{}`); a.status != http.StatusUnauthorized {
			t.Errorf("key %q: status %d", key, a.status)
		}
	}
}

func TestPackedBodies(t *testing.T) {
	c := newCore(t)
	send := func(encoding string, body []byte) answer {
		return c.send(http.MethodPost, wire.PathUsage, map[string]string{"x-node-auth-key": c.key, "Content-Encoding": encoding}, string(body))
	}
	packed := func(text string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		return b.Bytes()
	}
	if a := send("gzip", packed(usageBody)); a.status != http.StatusOK || a.header.Get("Accept-Encoding") != "gzip" {
		t.Errorf("packed: %+v", a)
	}
	if rows, _, _ := c.sums(); rows != 2 {
		t.Errorf("%d rows", rows)
	}
	// A small body that unpacks to a large one is too large all the same.
	if a := send("gzip", packed(`{"entries":[`+strings.Repeat(" ", maxBatchBody)+`]}`)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a bomb: %d %s", a.status, a.body)
	}
	if a := send("gzip", []byte(usageBody)); a.status != http.StatusBadRequest {
		t.Errorf("not packed: %d", a.status)
	}
	if a := send("br", []byte(usageBody)); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("packed as br: %d", a.status)
	}
}

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
	if h, _ := held(1, ""); h.NeedSync {
		t.Error("a node that is up to date is to sync")
	}
	if h, took := held(1, "wait=1"); h.NeedSync || took < time.Second {
		t.Errorf("held for %s, sync %v", took, h.NeedSync)
	}
	done := make(chan wire.HeartbeatResponse)
	go func() {
		h, _ := held(1, "respond-async, wait=60")
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
	c.want(http.StatusOK, c.post(wire.PathHeartbeat, "", `{"revision":1}`), nil)
	if n := show(); n.Status != "error" {
		t.Errorf("a heartbeat right after an error made it %s", n.Status)
	}
	c.want(http.StatusOK, c.post(wire.PathApplied, "", `{"revision":1}`), nil)
	if n := show(); n.Status != "online" || n.SyncStatus != "synced" || *n.AppliedRevision != 1 {
		t.Errorf("after applied: %+v", n)
	}
}

func TestConfigIsCachedAndPacked(t *testing.T) {
	c := newCore(t)
	get := func(header map[string]string) answer {
		header["x-node-auth-key"] = c.key
		return c.send(http.MethodGet, wire.PathConfig, header, "")
	}
	plain := get(map[string]string{"Accept-Encoding": "identity"})
	var config wire.NodeConfig
	c.want(http.StatusOK, plain, &config)
	if config.Revision != 1 || config.ClientMap == nil || string(config.Services.Xray) != `{"inbounds":[],"outbounds":[{"protocol":"freedom","settings":{},"tag":"direct"}],"routing":{}}` {
		t.Errorf("config %s", plain.body)
	}
	etag := plain.header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag} {
		if a := get(map[string]string{"If-None-Match": match}); a.status != http.StatusNotModified || a.body != "" {
			t.Errorf("If-None-Match %s: %d %q", match, a.status, a.body)
		}
	}
	for accepted, want := range map[string]string{"zstd, gzip": "zstd", "zstd;q=0, gzip": "gzip", "br": ""} {
		if a := get(map[string]string{"Accept-Encoding": accepted}); a.header.Get("Content-Encoding") != want {
			t.Errorf("Accept-Encoding %s: packed as %q", accepted, a.header.Get("Content-Encoding"))
		}
	}
}
