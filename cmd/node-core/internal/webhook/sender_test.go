package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
	"nodeagent/internal/postgrestest"
	"nodeagent/internal/secret"
)

const testSecret = secret.Text("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")

// core is a database with a sender that may be stopped and started again.
type core struct {
	t     *testing.T
	store *corestore.Store
	hub   *hub.Hub
	http  bool
	set   func(*Sender) // changes its times
	end   func()
}

func openCore(t *testing.T, open func() (*corestore.Store, error)) *core {
	t.Helper()
	store, err := open()
	if err != nil {
		t.Fatal(err)
	}
	c := &core{t: t, store: store, hub: hub.New(), http: true, end: func() {}, set: func(s *Sender) {
		s.first, s.most, s.look = time.Millisecond, 20*time.Millisecond, 50*time.Millisecond
		s.client.Timeout = 30 * time.Second
	}}
	store.OnEvent(c.hub.Happened)
	t.Cleanup(func() { c.end(); _ = store.Close() })
	return c
}

func onSQLite(t *testing.T) *core {
	t.Helper()
	dir := t.TempDir()
	return openCore(t, func() (*corestore.Store, error) { return corestore.Open(t.Context(), dir) })
}

func (c *core) sender() *Sender {
	s := New(c.store, c.hub, Allowed{HTTP: c.http}, slog.New(slog.DiscardHandler))
	c.set(s)
	return s
}

// start starts the sender; stop ends it as the end of Core does.
func (c *core) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s := c.sender()
	go func() { defer close(ended); s.Run(ctx) }()
	c.end = func() { cancel(); <-ended; c.end = func() {} }
}

func (c *core) stop() { c.end() }

func (c *core) add(url string, kinds ...coreapi.EventKind) int64 {
	c.t.Helper()
	key, err := ParseKey(testSecret)
	if err != nil {
		c.t.Fatal(err)
	}
	w, err := c.store.AddWebhook(c.t.Context(), url, kinds, key)
	if err != nil {
		c.t.Fatal(err)
	}
	return w.ID
}

// happen makes n events, one for each of n new users, whose ids it returns.
func (c *core) happen(n int) (users []int64) {
	c.t.Helper()
	for range n {
		user, err := c.store.AddUser(c.t.Context(), fmt.Sprintf("user-%d", time.Now().UnixNano()))
		if err != nil {
			c.t.Fatal(err)
		}
		if err := c.store.AddSessionEvents(c.t.Context(), 1, "", []wire.SessionEvent{{UserID: user.ID, EventType: wire.Online, OccurredAt: time.Now()}}); err != nil {
			c.t.Fatal(err)
		}
		users = append(users, user.ID)
	}
	return users
}

// until waits until the webhook is as is says.
func (c *core) until(id int64, what string, is func(coreapi.Webhook) bool) {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		hooks, err := c.store.Webhooks(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		i := slices.IndexFunc(hooks, func(w coreapi.Webhook) bool { return w.ID == id })
		if i >= 0 && is(hooks[i]) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the webhook is not %s: %+v", what, hooks)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func delivered(w coreapi.Webhook) bool { return w.Waiting == 0 && w.State == "ok" }

// receiver is an operator's server. answer decides about each request; nil is 204.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	tries  []string // the ids of all requests
	users  []int64  // of the events that were taken
	busy   int
	most   int // how many requests came at a time
	answer func(w http.ResponseWriter, r *http.Request, try int) bool
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, try int) bool) *receiver {
	t.Helper()
	rec := &receiver{answer: answer}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		id, at := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(testSecret.Reveal(), "whsec_"))
		mac := hmac.New(sha256.New, key)
		_, _ = io.WriteString(mac, id+"."+at+"."+string(body))
		if r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			t.Errorf("a request has another signature: %v", r.Header)
		}
		var e coreapi.Event
		if err := json.Unmarshal(body, &e); err != nil || id != fmt.Sprintf("evt_%d", e.ID) || r.Header.Get("node-core-event") != string(e.Kind) {
			t.Errorf("got %s (%v), %s", body, r.Header, err)
		}
		rec.mu.Lock()
		rec.tries = append(rec.tries, id)
		try := len(rec.tries)
		rec.busy++
		rec.most = max(rec.most, rec.busy)
		rec.mu.Unlock()
		taken := rec.answer == nil || rec.answer(w, r, try)
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.busy--
		if taken {
			rec.users = append(rec.users, e.UserID)
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (r *receiver) has(t *testing.T, want []int64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.users, want) {
		t.Errorf("the receiver has the events of users %v, want %v", r.users, want)
	}
	if r.most > 1 {
		t.Errorf("%d requests came at a time, want one", r.most)
	}
}

// A receiver that fails in all manners gets each event once, in order, under one id for all its tries,
// over an end and a start of Core in the middle.
func TestEventsArriveInOrder(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	rec := newReceiver(t, func(w http.ResponseWriter, r *http.Request, try int) bool {
		switch try % 5 {
		case 1:
			http.Error(w, "no", http.StatusInternalServerError)
		case 2:
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		case 3:
			hijacked, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = hijacked.Close()
			}
		case 4:
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusBadGateway)
			flood := make([]byte, 64<<10)
			for range 10_000 { // 640 MB, of which Core reads nothing
				if _, err := w.Write(flood); err != nil {
					return false
				}
			}
			t.Error("all of a flood was read")
		default:
			return true
		}
		return false
	})
	c := onSQLite(t)
	before := c.happen(2) // before the webhook: they are not sent
	id := c.add(rec.URL)
	c.start()
	want := c.happen(3)
	c.until(id, "delivered", delivered)
	c.stop()
	want = append(want, c.happen(2)...)
	c.start()
	want = append(want, c.happen(1)...)
	c.until(id, "delivered", delivered)
	rec.has(t, want)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	ids := slices.Compact(slices.Clone(rec.tries))
	if len(ids) != len(want) || len(rec.tries) != 5*len(want) || len(before) != 2 {
		t.Errorf("%d tries under %d ids in a row, want %d under %d", len(rec.tries), len(ids), 5*len(want), len(want))
	}
}

// A receiver that answers twice to each request gets each event once and in order: Core takes the second
// answer for no answer to the next event.
func TestReceiverThatAnswersTwice(t *testing.T) {
	rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, try int) bool {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return false
		}
		first, second := "204 No Content", "500 Internal Server Error"
		if try%3 == 0 { // and the other way round
			first, second = second, first
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 "+first+"\r\nContent-Length: 0\r\n\r\n")
		go func() {
			_, _ = io.WriteString(conn, "HTTP/1.1 "+second+"\r\nContent-Length: 0\r\n\r\n") // where Core has not closed it
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}()
		return try%3 != 0
	})
	c := onSQLite(t)
	id := c.add(rec.URL)
	c.start()
	want := c.happen(7)
	c.until(id, "delivered", delivered)
	rec.has(t, want)
}

// A receiver that hangs costs the time of one try. An end of Core does not wait for it, and the event
// comes again under the same id.
func TestReceiverThatHangs(t *testing.T) {
	hanging := make(chan struct{}, 1)
	var hangs atomic.Bool
	hangs.Store(true)
	rec := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if !hangs.Load() {
			return true
		}
		select {
		case hanging <- struct{}{}:
		default:
		}
		<-r.Context().Done()
		return false
	})
	c := onSQLite(t)
	id := c.add(rec.URL)
	set := c.set
	c.set = func(s *Sender) { set(s); s.client.Timeout = time.Hour }
	c.start()
	want := c.happen(1)
	<-hanging
	c.stop() // would hang too
	c.set = func(s *Sender) { set(s); s.client.Timeout = 200 * time.Millisecond }
	c.start()
	c.until(id, "failing for want of an answer", func(w coreapi.Webhook) bool {
		return strings.Contains(w.LastError, "no answer") && !strings.Contains(w.LastError, rec.URL)
	})
	c.stop()
	hangs.Store(false)
	c.set = set // a busy machine may take longer to answer than the try above
	c.start()
	c.until(id, "delivered", delivered)
	rec.has(t, want)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if ids := slices.Compact(slices.Clone(rec.tries)); len(ids) != 1 {
		t.Errorf("the tries of one event have the ids %v", ids)
	}
}

// A receiver that is down for too long loses what waited as long, is shown as failing with the reason,
// and goes on with what is younger.
func TestReceiverThatIsDown(t *testing.T) {
	var down sync.Mutex
	isDown := true
	rec := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		down.Lock()
		defer down.Unlock()
		if isDown {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return !isDown
	})
	c := onSQLite(t)
	id := c.add(rec.URL, coreapi.EventFirstConnected)
	set := c.set
	c.set = func(s *Sender) { set(s); s.patience = 100 * time.Millisecond }
	c.start()
	c.happen(2)
	c.until(id, "failing", func(w coreapi.Webhook) bool {
		return w.State == "failing" && w.GivenUp == 2 && w.Waiting == 0 && strings.Contains(w.LastError, "503")
	})
	c.stop()
	c.set = func(s *Sender) { set(s); s.patience = time.Hour; s.first, s.most = time.Hour, time.Hour }
	c.start()
	want := c.happen(2)
	c.until(id, "tried", func(w coreapi.Webhook) bool {
		return w.Waiting == 2 && w.Attempts > 0 && w.NextAt != nil && time.Until(*w.NextAt) > time.Minute
	})
	down.Lock()
	isDown = false
	down.Unlock()
	// After a test that arrives, the other events are tried at once.
	if err := c.store.RetryWebhook(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.until(id, "delivered", delivered)
	rec.has(t, want)
}

// A webhook gets the kinds that it wants, and a removed one gets nothing more.
func TestKindsOfAWebhook(t *testing.T) {
	rec, other := newReceiver(t, nil), newReceiver(t, nil)
	c := onSQLite(t)
	id, otherID := c.add(rec.URL, coreapi.EventNodeOffline), c.add(other.URL, coreapi.EventNodeOffline, coreapi.EventFirstConnected)
	c.start()
	want := c.happen(2)
	c.until(otherID, "delivered", delivered)
	other.has(t, want)
	rec.has(t, nil)
	if _, err := c.store.RemoveWebhook(t.Context(), otherID); err != nil {
		t.Fatal(err)
	}
	c.hub.Happened()
	c.happen(1)
	c.until(id, "left alone", delivered)
	if _, err := c.store.RemoveWebhook(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.stop()
}

// Of two instances on one PostgreSQL one sends, and the other goes on when it ends.
func TestOneInstanceSends(t *testing.T) {
	server := postgrestest.Start(t)
	url := server.Database(t)
	open := func() (*corestore.Store, error) {
		return corestore.OpenPostgres(t.Context(), corestore.Postgres{URL: url})
	}
	rec := newReceiver(t, nil)
	one, other := openCore(t, open), openCore(t, open)
	id := one.add(rec.URL)
	one.start()
	other.start()
	want := one.happen(5)
	want = append(want, other.happen(5)...)
	one.until(id, "delivered", delivered)
	one.stop()
	want = append(want, one.happen(3)...)
	other.until(id, "delivered", delivered)
	rec.has(t, want)
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.tries) != len(want) {
		t.Errorf("%d tries for %d events", len(rec.tries), len(want))
	}
}

// A test is sent at once, and says why it did not arrive. Plain HTTP needs to be allowed.
func TestOfAWebhook(t *testing.T) {
	status := http.StatusOK
	var kind string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind = r.Header.Get("Node-Core-Event")
		w.WriteHeader(status)
	}))
	defer server.Close()
	c := onSQLite(t)
	id := c.add(server.URL + "/secret-path")
	if got, err := c.sender().Test(t.Context(), id); err != nil || !got.OK || kind != string(coreapi.EventWebhookTest) {
		t.Errorf("got %+v, %v; the kind is %q", got, err, kind)
	}
	status = http.StatusTeapot
	if got, err := c.sender().Test(t.Context(), id); err != nil || got.OK || !strings.Contains(got.Error, "418") {
		t.Errorf("got %+v, %v", got, err)
	}
	server.Close()
	if got, err := c.sender().Test(t.Context(), id); err != nil || got.OK || strings.Contains(got.Error, "secret-path") {
		t.Errorf("got %+v, %v", got, err)
	}
	c.http = false
	if got, err := c.sender().Test(t.Context(), id); err != nil || got.OK || !strings.Contains(got.Error, "--webhook-http") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	for address, good := range map[string]bool{
		"https://shop.example/x": true, "http://shop.example/x": false, "ftp://shop.example": false, "shop.example": false, "https://": false, "https://a b/": false, "": false,
	} {
		if err := CheckURL(address, Allowed{}); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
	if err := CheckURL("http://127.0.0.1:1/x", Allowed{HTTP: true}); err != nil {
		t.Error(err)
	}
	for text, good := range map[secret.Text]bool{testSecret: true, testSecret + "\n": true, "whsec_": false, "whsec_AAAA": false, "x" + testSecret: false, "": false} {
		if _, err := ParseKey(text); (err == nil) != good {
			t.Errorf("%q: %v", text.Reveal(), err)
		}
	}
}

// Waits grow to the most, and no further.
func TestWaits(t *testing.T) {
	s := New(nil, nil, Allowed{}, slog.New(slog.DiscardHandler))
	for failures, least := range map[int64]time.Duration{1: 4 * time.Second, 2: 9 * time.Second, 5: 70 * time.Second, 1_000_000: 5 * time.Hour} {
		if got := s.waitAfter(failures); got < least || got > 2*least {
			t.Errorf("after %d failures: %s, want %s or a bit more", failures, got, least)
		}
	}
}

// The command of docs/api.md computes the signature that Core sends.
func TestTheDocumentedCheckOfASignature(t *testing.T) {
	for _, tool := range []string{"sh", "openssl", "xxd", "base64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: %s is missing (apt-get install openssl xxd)", tool)
		}
	}
	docs, err := os.ReadFile("../../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, command, found := strings.Cut(string(docs), "<!-- not run: in the tests of commands; TestTheDocumentedCheckOfASignature runs it -->\n\n")
	command, _, _ = strings.Cut(command, "\n\n")
	if !found {
		t.Fatal("docs/api.md has no such command")
	}
	dir := t.TempDir()
	body := []byte(`{"id":1}`)
	if err := os.WriteFile(filepath.Join(dir, "body"), body, 0o600); err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), "sh", "-ec", command)
	run.Dir = dir
	run.Env = append(os.Environ(), "SECRET="+testSecret.Reveal(), "ID=evt_1", "TIMESTAMP=1800000000")
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key, err := ParseKey(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	if want := signature(key, "evt_1", "1800000000", body); strings.TrimSpace(string(out)) != want {
		t.Errorf("the command prints %q, want %q", out, want)
	}
}

// Nothing is sent to addresses at which clouds tell a host its secrets, also where a name resolves to
// one. Receivers on loopback and in private networks are good.
func TestAddressesOfNoReceiver(t *testing.T) {
	for address, good := range map[string]bool{
		"https://169.254.169.254/latest": false, "https://[fe80::1%25eth0]/x": false, "https://[fd00:ec2::254]/x": false, "https://100.100.100.200/x": false,
		"https://[::ffff:169.254.169.254]/x": false, "https://0.0.0.0/x": false, "https://[ff02::1]/x": false,
		"https://[64:ff9b::169.254.169.254]/x": false, "https://[64:ff9b::6464:64c8]/x": false, "https://[64:ff9b::]/x": false, "https://[64:ff9b::203.0.113.7]/x": true,
		"https://127.0.0.1:1/x": true, "https://10.0.0.1/x": true, "https://[::1]/x": true, "https://[fd00::1]/x": true, "https://100.64.0.1/x": true, "https://shop.example/x": true,
	} {
		if err := CheckURL(address, Allowed{}); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
		if err := CheckURL(address, Allowed{AnyAddress: true}); err != nil {
			t.Errorf("%s, and any address is allowed: %v", address, err)
		}
	}
	// What is dialled is checked, and not only what the operator wrote.
	for anyAddress, says := range map[bool]string{false: "--webhook-any-address", true: ""} {
		ctx := t.Context()
		if anyAddress { // nothing answers there
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		}
		err := post(ctx, newClient(anyAddress), "http://169.254.169.254:1/", []byte("key"), "evt_1", coreapi.Event{Data: []byte("{}")}, time.Now())
		if err == nil || !strings.Contains(err.Error(), says) || anyAddress && strings.Contains(err.Error(), "metadata") {
			t.Errorf("any address %t: %v", anyAddress, err)
		}
	}
}
