package xhttp

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/xtls/xray-core/transport/internet/splithttp"
)

// A worker that announces itself hears of the sessions that another one has, and forgets them once that one has
// ended or listens anew. It hears of no other ones.
func TestSessionsAreTold(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	n.wants("before", first, "/x/a/0", first)
	reading, read := io.Pipe()
	posted := make(chan struct{})
	go func() {
		defer close(posted)
		request := httptest.NewRequest(http.MethodPut, "/x/claimed/0", reading)
		first.listener.place.serve(httptest.NewRecorder(), request, first.listener, aClient)
	}()
	<-first.handled
	first.listener.sessions.Delete("claimed") // as before xray-core's handler has it
	second := n.worker(readAll)
	at := first.listener.place.address
	for session, want := range map[string]bool{"a": true, "claimed": true, "b": false, "": false} {
		if second.workers.had(at, session) != want || second.workers.had("another", session) {
			t.Errorf("session %q: want %t", session, want)
		}
	}
	_ = read.Close()
	<-posted
	anew := first.workers.announce(at, first.listener.served())
	until(t, "what was said before it listens anew is forgotten", func() bool { return !second.workers.had(at, "a") })
	anew()
	third := n.worker(readAll)
	if !third.workers.had(at, "a") {
		t.Fatal("the third worker has not heard of the first one's session")
	}
	first.crash()
	until(t, "the sessions of a worker that has ended are forgotten", func() bool { return !third.workers.had(at, "a") })
}

// Two addresses of one port are both meant where another worker listens on all addresses.
func TestPlacesOfOnePort(t *testing.T) {
	n := newTestNode(t)
	first := n.worker(readAll)
	other := newListener("/y")
	other.requests = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Other", "yes")
		first.listener.requests.ServeHTTP(w, r)
	})
	other.place = first.places.join("192.0.2.2:443", other)
	elsewhere := newListener("/x")
	elsewhere.sessions.Store("c", nil)
	first.places.join("192.0.2.2:8443", elsewhere)
	n.wants("before", first, "/x/a/0", first)
	other.sessions.Store("b", nil)
	all := n.begin(&testWorker{address: "0.0.0.0:443"}, readAll)
	for session, want := range map[string]bool{"a": true, "b": true, "c": false} {
		if all.workers.had("0.0.0.0:443", session) != want {
			t.Errorf("session %q: want %t", session, want)
		}
	}
	n.wants("a session of one address", all, "/x/a/1", first)
	n.wants("a session of the other address", all, "/y/b/1", first)
	for path, want := range map[string]string{"/x/new/0": "", "/y/new/0": "yes"} {
		came := httptest.NewRequest(http.MethodPut, path, http.NoBody)
		request, _ := all.workers.passedRequest(t.Context(), came, first.lane, kindNew, "0.0.0.0:443", 1)
		answer := httptest.NewRecorder()
		first.workers.ServeHTTP(answer, request)
		if got := answer.Header().Get("Other"); got != want || len(first.handled) != 1 {
			t.Fatalf("%s: by the other listener: %q, want %q", path, got, want)
		}
		<-first.handled
	}
}

// One worker tells another of so many sessions, and of no more, however many places they have.
func TestSessionsThatAreToldAreBounded(t *testing.T) {
	all := &places{all: map[string]*sharedPlace{}}
	for _, address := range []string{"192.0.2.1:443", "192.0.2.2:443"} {
		l := newListener("/x")
		place := all.join(address, l)
		for i := range 40_000 {
			l.sessions.Store("a"+strconv.Itoa(i), nil)
			place.claims["b"+strconv.Itoa(i)] = &claim{by: l}
		}
	}
	paths, sessions := tell(all.at("0.0.0.0:443"))
	if len(paths) != 2 || len(sessions) != 8*65_536 {
		t.Errorf("%d sessions and %d paths are told", len(sessions)/8, len(paths))
	}
}

// A request whose path none of a worker's listeners has, nor had, does not go to that worker.
func TestPathsThatAWorkerDoesNotHave(t *testing.T) {
	n := newTestNode(t)
	first := n.begin(&testWorker{single: true}, readAll)
	n.wants("before", first, "/x/a/0", first)
	second := n.begin(&testWorker{single: true, path: "/y"}, readAll)
	asks := func(what string, came *testWorker, path string, want *testWorker, asked bool) {
		t.Helper()
		before := first.dialed.Load() + second.dialed.Load()
		n.wants(what, came, path, want)
		if now := first.dialed.Load() + second.dialed.Load(); asked != (now > before) {
			t.Errorf("%s: %d connections between workers, want some: %t", what, now-before, asked)
		}
	}
	asks("a path that neither has, over the newer one", second, "/other/a", second, false)
	asks("a path that neither has, over the older one", first, "/other/a", first, false)
	asks("a path of the older one alone", second, "/x/a/1", first, true)
	asks("a new session on a path of the newer one alone, over that", second, "/y/b/0", second, false)
	asks("the same, over the older one", first, "/y/b/1", second, true)
	second.listener.config = &splithttp.Config{Path: "/z"}
	withdraw := second.workers.announce(second.listener.place.address, second.listener.served())
	second.listener.withdraw()
	second.listener.withdraw = withdraw
	until(t, "the older one knows one announcement", func() bool {
		first.workers.mu.Lock()
		defer first.workers.mu.Unlock()
		return len(first.workers.newer[first.listener.place.address]) == 1
	})
	asks("a path that it had before", first, "/y/b/2", second, true)
	asks("its new path, over the older one", first, "/z/c/0", second, true)
}

// Of a worker of an older build, which says neither its paths nor its sessions, everything is asked.
func TestOlderBuildsSayNothing(t *testing.T) {
	n := newTestNode(t)
	first, second := n.begin(&testWorker{single: true}, readAll), n.begin(&testWorker{single: true}, readAll)
	at := first.listener.place.address
	for _, w := range n.all {
		w.workers.mu.Lock()
		clear(w.workers.told)
		w.workers.serving[lanePlace{second.lane, at}] = nil
		w.workers.mu.Unlock()
		dialed := w.dialed.Load()
		w.post("/other/a", "")
		if w.dialed.Load() == dialed {
			t.Errorf("worker %d asks nobody", w.lane)
		}
	}
	for header, want := range map[string]bool{"": false, `"[{\"Path\":\"/x\"}]"`: true, `[]`: false, `"{"`: false} {
		answer := &http.Response{Header: http.Header{}, Body: http.NoBody}
		answer.Header.Set(fieldServed, header)
		answer.Header.Set(fieldSessions, "0")
		if says, err := readTold(answer); err != nil || (says != nil) != want {
			t.Errorf("%q is read as %+v, %v", header, says, err)
		}
	}
}
