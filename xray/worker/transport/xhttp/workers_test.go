package xhttp

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// testNode has the workers of one node in this process. mu guards all.
type testNode struct {
	t   *testing.T
	dir string

	mu  sync.Mutex
	all []*testWorker
}

// testWorker has a listener, and a server that hands it the requests of clients.
type testWorker struct {
	node     *testNode
	lane     int
	path     string // that it serves; /x where it is empty
	address  string // where it listens, for the other workers; one that all share where it is empty
	single   bool   // a connection to another worker carries one request
	places   places
	workers  *workers
	socket   net.Listener
	ended    atomic.Bool
	listener *listener
	clients  *httptest.Server
	handled  chan *http.Request
	dialed   atomic.Int32
	noFiles  atomic.Bool // DialStream fails
}

func newTestNode(t *testing.T) *testNode { return &testNode{t: t, dir: t.TempDir()} }

func (w *testWorker) Lane() int { return w.lane }

func (w *testWorker) Others() (lanes []int) {
	w.node.mu.Lock()
	defer w.node.mu.Unlock()
	for _, other := range w.node.all {
		if other != w && !other.ended.Load() {
			lanes = append(lanes, other.lane)
		}
	}
	return lanes
}

func (n *testNode) path(lane int) string { return filepath.Join(n.dir, fmt.Sprint(lane)) }

func (w *testWorker) DialStream(ctx context.Context, _ string, lane int) (net.Conn, error) {
	w.dialed.Add(1)
	if w.noFiles.Load() {
		return nil, syscall.EMFILE
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", w.node.path(lane))
}

// worker starts a worker that listens on the address of all others.
func (n *testNode) worker(handle http.HandlerFunc) *testWorker {
	n.t.Helper()
	return n.begin(&testWorker{}, handle)
}

// begin starts w.
func (n *testNode) begin(w *testWorker, handle http.HandlerFunc) *testWorker {
	n.t.Helper()
	n.mu.Lock()
	w.node, w.lane, w.places.all, w.handled = n, len(n.all), map[string]*sharedPlace{}, make(chan *http.Request, 1000)
	n.all = append(n.all, w)
	n.mu.Unlock()
	var err error
	if w.socket, err = net.Listen("unix", n.path(w.lane)); err != nil {
		n.t.Fatal(err)
	}
	w.workers = joinWorkers(&w.places, w, w.socket)
	w.workers.transport.DisableKeepAlives = w.single
	l := newListener(cmp.Or(w.path, "/x"))
	l.requests = http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) { // as xray-core's
		if session := l.session(r); session != "" {
			l.sessions.Store(session, nil)
		}
		w.handled <- r
		handle(answer, r)
	})
	l.place = w.places.join(cmp.Or(w.address, "192.0.2.1:443"), l)
	l.withdraw = w.workers.announce(l.place.address, l.served())
	w.listener = l
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	w.clients = httptest.NewUnstartedServer(l)
	w.clients.Config.Protocols = protocols
	w.clients.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	l.open.Listener, l.open.none = w.clients.Listener, func() {}
	w.clients.Listener = &l.open
	w.clients.Start()
	n.t.Cleanup(func() { w.crash(); w.clients.Close() })
	return w
}

// close ends the listening, as a worker does that drains.
func (w *testWorker) close() {
	w.listener.closed.Store(true)
	w.listener.withdraw()
}

// crash ends what the worker does for others.
func (w *testWorker) crash() {
	if !w.ended.Swap(true) {
		_ = w.workers.server.Close()
		w.workers.transport.CloseIdleConnections()
		w.listener.withdraw()
	}
}

// post sends a request of a client to the worker, and returns the body of the answer.
func (w *testWorker) post(path, body string) (status int, text string) {
	w.node.t.Helper()
	request, err := http.NewRequestWithContext(w.node.t.Context(), http.MethodPut, w.clients.URL+path, strings.NewReader(body))
	if err != nil {
		w.node.t.Fatal(err)
	}
	request.Host = "site.test"
	request.Header.Set("X-Padding", "XXX")
	request.Header.Set(fieldRemote, "203.0.113.9:1") // a client that tries
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		w.node.t.Fatal(err)
	}
	defer answer.Body.Close()
	all, err := io.ReadAll(answer.Body)
	if err != nil {
		w.node.t.Fatal(err)
	}
	return answer.StatusCode, string(all)
}

// wants checks that a request of a client to came is handled by a worker.
func (n *testNode) wants(what string, came *testWorker, path string, want *testWorker) {
	n.t.Helper()
	status, text := came.post(path, "body of "+path)
	if status != http.StatusAccepted || text != "body of "+path {
		n.t.Fatalf("%s: %s is answered %d %q", what, path, status, text)
	}
	for _, w := range n.all {
		switch {
		case len(w.handled) > 0 && w != want:
			n.t.Errorf("%s: worker %d handles %s, want %d", what, w.lane, path, want.lane)
		case len(w.handled) == 0 && w == want:
			n.t.Errorf("%s: worker %d does not handle %s", what, w.lane, path)
		}
		for len(w.handled) > 0 {
			r := <-w.handled
			local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
			if r.Method != http.MethodPut || r.URL.Path != path || r.RequestURI != path || r.Host != "site.test" || r.Header.Get("X-Padding") != "XXX" ||
				!strings.HasPrefix(r.RemoteAddr, "127.0.0.1:") || local == nil || local.String() != came.clients.Listener.Addr().String() || r.Header.Get(fieldKind) != "" {
				n.t.Errorf("%s: the request is %s %s (%s) of %s, host %q, header %v, at %v", what, r.Method, r.URL, r.RequestURI, r.RemoteAddr, r.Host, r.Header, local)
			}
		}
	}
}

// echo answers with what it gets.
func echo(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusAccepted)
	_ = http.NewResponseController(w).Flush()
	buffer := make([]byte, 1000)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			_, _ = w.Write(buffer[:n])
			_ = http.NewResponseController(w).Flush()
		}
		if err != nil {
			return
		}
	}
}

// readAll answers with what it has got.
func readAll(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(body)
}

// A request reaches the worker that has its session, over each of the workers, as it was sent. A new
// session begins in the worker that came last.
func TestRequestsReachTheirWorker(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	n.wants("alone", first, "/x/a/0", first)
	second := n.worker(readAll)
	n.wants("a session of before", second, "/x/a/1", first)
	n.wants("the same, over its own worker", first, "/x/a/2", first)
	n.wants("a new session, over the worker before", first, "/x/b/0", second)
	first.close()
	n.wants("a new session, over the worker that drains", first, "/x/c/0", second)
	n.wants("without a session", first, "/x/", second)
	third := n.worker(readAll)
	second.close()
	n.wants("the oldest session", third, "/x/a/3", first)
	n.wants("the same, over the worker between", second, "/x/a/4", first)
	n.wants("a session of the worker between", first, "/x/c/1", second)
	n.wants("a new one, over the oldest", first, "/x/d/0", third)
	n.wants("a new one, over the newest", third, "/x/e/0", third)
	second.crash()
	n.wants("over two workers, one is gone", first, "/x/f/0", third)
	n.wants("the oldest session, one worker is gone", third, "/x/a/5", first)
	third.crash()
	third.listener.withdraw()
	if status, _ := first.post("/x/g/0", ""); status != http.StatusNotFound {
		t.Errorf("a new session in a worker that drains, where the next one is gone, is answered %d", status)
	}
}

// A worker that drains serves new sessions on open connections where the next worker is too old to say
// that it listens.
func TestADrainingWorkerServesWithoutANext(t *testing.T) {
	n := newTestNode(t)
	only := n.worker(readAll)
	only.close()
	if status, _ := only.post("/x/a/0", ""); status != http.StatusNotFound {
		t.Errorf("a closed listener answers %d", status)
	}
	only.workers.draining.Store(true)
	n.wants("drains", only, "/x/a/1", only)
}

// However requests of sessions come to two workers while one takes over, those of a session are handled by
// one worker.
func TestASessionHasOneWorker(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	const sessions, requests = 200, 6
	var mu sync.Mutex
	owners := map[string]map[*testWorker]bool{}
	workers := atomic.Pointer[[]*testWorker]{}
	workers.Store(&[]*testWorker{first})
	var posting sync.WaitGroup
	limit := make(chan struct{}, 16)
	for session := range sessions {
		if session == sessions/2 {
			second := n.worker(readAll)
			workers.Store(&[]*testWorker{first, second})
		}
		for request := range requests {
			limit <- struct{}{}
			posting.Go(func() {
				defer func() { <-limit }()
				all := *workers.Load()
				path := fmt.Sprintf("/x/%d/%d", session, request)
				if status, text := all[rand.IntN(len(all))].post(path, path); status != http.StatusAccepted || text != path {
					t.Errorf("%s is answered %d %q", path, status, text)
				}
			})
		}
	}
	posting.Wait()
	all := 0
	for _, w := range n.all {
		for len(w.handled) > 0 {
			session := strings.Split((<-w.handled).URL.Path, "/")[2]
			mu.Lock()
			if owners[session] == nil {
				owners[session] = map[*testWorker]bool{}
			}
			owners[session][w] = true
			mu.Unlock()
			all++
		}
	}
	if all != sessions*requests {
		t.Errorf("%d requests are handled, want %d", all, sessions*requests)
	}
	both := map[int]int{}
	for session, of := range owners {
		if len(of) != 1 {
			t.Errorf("session %s has %d workers", session, len(of))
		}
		for w := range of {
			both[w.lane]++
		}
	}
	if both[0] == 0 || both[1] == 0 {
		t.Errorf("the sessions by worker: %v", both)
	}
}

// A request that is passed on moves bytes both ways at the same time, and ends with an error where its
// worker crashes.
func TestPassedStreams(t *testing.T) {
	n := newTestNode(t)
	first, second := n.worker(echo), n.worker(echo)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	open := func(path string) (up *io.PipeWriter, down io.Reader) {
		t.Helper()
		body, up := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, first.clients.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil || answer.StatusCode != http.StatusAccepted {
			t.Fatalf("%+v: %v", answer, err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return up, answer.Body
	}
	bounce := func(up io.Writer, down io.Reader) error {
		for i := range 5 {
			text := fmt.Sprintf("part %d", i)
			if _, err := io.WriteString(up, text); err != nil {
				return err
			}
			back := make([]byte, len(text))
			if _, err := io.ReadFull(down, back); err != nil || string(back) != text {
				return fmt.Errorf("%q came back: %w", back, err)
			}
		}
		return nil
	}
	up, down := open("/x/one")
	if err := bounce(up, down); err != nil {
		t.Fatal(err)
	}
	if r := <-second.handled; r.ProtoMajor != 2 {
		t.Errorf("the request is one of %s", r.Proto)
	}
	_ = up.Close()
	if rest, err := io.ReadAll(down); err != nil || len(rest) > 0 {
		t.Errorf("the end: %q, %v", rest, err)
	}
	up, down = open("/x/two")
	if err := bounce(up, down); err != nil {
		t.Fatal(err)
	}
	second.crash()
	if _, err := io.ReadAll(down); err == nil {
		t.Error("the answer of a worker that crashed ends as if it were whole")
	}
	awaitFree(t, first.workers.room)
}
