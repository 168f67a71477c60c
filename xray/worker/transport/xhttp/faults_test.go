package xhttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/transport/internet/splithttp"
)

// awaitFree waits until all places of a room are free.
func awaitFree(t *testing.T, room chan struct{}) {
	t.Helper()
	deadline := time.After(time.Minute)
	for taken := range cap(room) {
		select {
		case room <- struct{}{}:
		case <-deadline:
			t.Fatalf("%d places are taken still", cap(room)-taken)
		}
	}
	for range cap(room) {
		<-room
	}
}

// until waits for what a worker has noted of another one, of which no event tells.
func until(t *testing.T, text string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come: " + text)
		}
	}
}

// hang puts a socket in the place of the worker's, which nobody serves, and returns a function that takes it
// away and serves the worker's again.
func (w *testWorker) hang() (goOn func()) {
	w.node.t.Helper()
	_ = w.workers.server.Close()
	listen := func() net.Listener {
		socket, err := net.Listen("unix", w.node.path(w.lane))
		if err != nil {
			w.node.t.Fatal(err)
		}
		return socket
	}
	hung := listen()
	w.node.t.Cleanup(func() { _ = hung.Close() })
	return func() {
		_ = hung.Close()
		server := &http.Server{Handler: w.workers}
		go func(socket net.Listener) { _ = server.Serve(socket) }(listen())
		w.node.t.Cleanup(func() { _ = server.Close() })
	}
}

// The sessions of a worker that is late stay with it, and new ones do not wait for it meanwhile. Once it
// answers, it is asked again.
func TestALateWorkerKeepsItsSessions(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	n.wants("before", first, "/x/a/0", first)
	n.wants("before", first, "/x/b/0", first)
	second := n.worker(readAll)
	goOn := first.hang()
	var posting sync.WaitGroup
	for _, path := range []string{"/x/a/1", "/x/a/2", "/x/b/1", "/x/b/0"} { // the last one could begin a session
		posting.Go(func() {
			if status, text := second.post(path, path); status != http.StatusAccepted || text != path {
				t.Errorf("%s is answered %d %q", path, status, text)
			}
		})
	}
	until(t, "the worker hangs", func() bool { return second.workers.hangs(first.lane) })
	n.wants("a new session, meanwhile", second, "/x/c/0", second)
	n.wants("its second request", second, "/x/c/1", second)
	goOn()
	posting.Wait()
	if len(first.handled) != 4 || len(second.handled) != 0 {
		t.Errorf("the worker that was late handles %d requests of its sessions, the other one %d", len(first.handled), len(second.handled))
	}
	for len(first.handled) > 0 {
		<-first.handled
	}
	until(t, "the worker hangs no longer", func() bool { return !second.workers.hangs(first.lane) })
	n.wants("after that", second, "/x/b/2", first)
}

// silent is another worker that takes connections and says nothing.
type silent struct {
	t     *testing.T
	ended atomic.Bool
	asked atomic.Int32
	done  chan struct{}
}

func (*silent) Lane() int { return 1 }

func (s *silent) Others() []int {
	if s.ended.Load() {
		return nil
	}
	return []int{0}
}

func (s *silent) DialStream(context.Context, string, int) (net.Conn, error) {
	s.asked.Add(1)
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	return near, nil
}

func (s *silent) Accept() (net.Conn, error) { <-s.done; return nil, net.ErrClosed }
func (s *silent) Close() error              { close(s.done); return nil }
func (*silent) Addr() net.Addr              { return &net.UnixAddr{} }

// A worker that hangs delays new sessions once, and those that continue one for a bounded time. They begin no
// session.
func TestAWorkerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &silent{t: t, done: make(chan struct{})}
		all := &places{all: map[string]*sharedPlace{}}
		x := joinWorkers(all, other, other)
		l := &listener{config: &splithttp.Config{Path: "/x"}, sessions: &sync.Map{}}
		l.requests = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
		l.place = all.join("here", l)
		request := func(method, path string, want int, least, most time.Duration) {
			t.Helper()
			began, answer := time.Now(), httptest.NewRecorder()
			l.ServeHTTP(answer, httptest.NewRequest(method, path, http.NoBody))
			if took := time.Since(began); answer.Code != want || took < least || took > most {
				t.Errorf("%s %s is answered %d after %s, want %d", method, path, answer.Code, took, want)
			}
		}
		request("POST", "/x/a/0", http.StatusAccepted, answerWait, answerWait)
		request("POST", "/x/b/0", http.StatusAccepted, 0, 0)
		request("GET", "/x/c", http.StatusAccepted, 0, 0)
		request("POST", "/x/d/1", http.StatusServiceUnavailable, patience, patience+time.Second)
		request("POST", "/x/e", http.StatusServiceUnavailable, patience, patience+time.Second)
		for range 100 {
			time.Sleep(time.Second)
			request("POST", "/x/f/0", http.StatusAccepted, 0, 0)
		}
		other.ended.Store(true)
		synctest.Wait()
		time.Sleep(2 * answerWait)
		if x.hangs(0) {
			t.Error("a worker that has ended hangs")
		}
		request("POST", "/x/g/1", http.StatusAccepted, 0, 0)
		_ = x.server.Close()
	})
}

// No more than mostPassed requests are with other workers at the same time, and no more than mostAsked wait
// for an answer. A worker's own new sessions begin all the same.
func TestPassedRequestsAreBounded(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	second := n.worker(readAll)
	for _, w := range n.all {
		for range mostPassed {
			w.workers.room <- struct{}{}
		}
	}
	if status, _ := first.post("/x/a/0", ""); status != http.StatusServiceUnavailable {
		t.Errorf("one more is answered %d", status)
	}
	n.wants("a session of the worker that is full", second, "/x/b/0", second)
	if len(first.workers.asking)+len(second.workers.asking) > 0 {
		t.Error("requests are asked about still")
	}
	dialed := second.dialed.Load()
	for range mostAsked {
		second.workers.asking <- struct{}{}
	}
	n.wants("while many wait", second, "/x/c/0", second)
	if second.dialed.Load() != dialed {
		t.Error("one more is asked about")
	}
}

// Clients of HTTP/1.1 whose requests are with a worker that ends are told, whether or not it has answered, and
// without a byte of theirs.
func TestClientsOfAWorkerThatEndsAreTold(t *testing.T) {
	for name, answers := range map[string]bool{"before it answers": false, "after that": true} {
		t.Run(name, func(t *testing.T) {
			n := newTestNode(t)
			first := n.worker(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/0") {
					return
				}
				if answers {
					w.WriteHeader(http.StatusAccepted)
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.Copy(io.Discard, r.Body)
			})
			first.post("/x/a/0", "")
			<-first.handled
			second := n.worker(readAll)
			const clients = 20
			var conns []net.Conn
			for i := range clients {
				conn, err := net.Dial("tcp", second.clients.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conns = append(conns, conn)
				if _, err := fmt.Fprintf(conn, "POST /x/a/%d HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", i+1); err != nil {
					t.Fatal(err)
				}
			}
			for range clients {
				<-first.handled
			}
			first.crash()
			for i, conn := range conns {
				_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
				in := bufio.NewReader(conn)
				line, err := in.ReadString('\n')
				if err == nil && !answers && !strings.Contains(line, "502") {
					t.Errorf("client %d gets %q", i, line)
				}
				if err == nil {
					_, err = io.Copy(io.Discard, in)
				}
				var late net.Error
				if errors.As(err, &late) && late.Timeout() {
					t.Fatalf("client %d is told nothing, or its connection stays", i)
				}
			}
			awaitFree(t, second.workers.room)
		})
	}
}

// A worker that can't be told for a moment is told later.
func TestAnnouncesAgain(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	second := &testWorker{}
	second.noFiles.Store(true)
	n.begin(second, readAll)
	if first.workers.followed(first.listener.place.address) {
		t.Fatal("the first worker is told")
	}
	second.noFiles.Store(false)
	until(t, "the first worker is told", func() bool { return first.workers.followed(first.listener.place.address) })
}

// A request that has no session goes to no other worker, where a listener of this one serves its path.
func TestRequestsWithoutASessionAreNotAskedAbout(t *testing.T) {
	n := newTestNode(t)
	n.worker(readAll)
	second := n.worker(readAll)
	dialed := second.dialed.Load()
	n.wants("without a session", second, "/x/", second)
	if second.dialed.Load() != dialed {
		t.Error("another worker was asked")
	}
}

// A client of HTTP/2 is known by its first bytes, in each number of parts.
func TestFirstBytes(t *testing.T) {
	for _, row := range []struct {
		sent         string
		only2        bool
		http2, fails bool
	}{
		{sent: "PRI * HTTP/2.0", only2: true, http2: true},
		{sent: "PRI * HTTP/2.0", http2: true},
		{sent: "POST / HTTP/1.1"},
		{sent: "PROPFIND / HTTP/1.1", only2: true, fails: true},
	} {
		for name, parts := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader} {
			c := &conn{Conn: &readFrom{from: parts(strings.NewReader(row.sent))}, only2: row.only2}
			got, err := io.ReadAll(c)
			if c.http2.Load() != row.http2 || row.fails != errors.Is(err, errNoPreface) || !row.fails && string(got) != row.sent {
				t.Errorf("%s, %s, only HTTP/2 %t: HTTP/2 %t, read %q, %v", row.sent, name, row.only2, c.http2.Load(), got, err)
			}
		}
	}
}

type readFrom struct {
	net.Conn
	from io.Reader
}

func (r *readFrom) Read(p []byte) (int, error) { return r.from.Read(p) }
