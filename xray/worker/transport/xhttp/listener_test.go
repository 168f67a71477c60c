package xhttp

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/transport/internet/splithttp"
)

func newListener(path string) *listener {
	return &listener{config: &splithttp.Config{Path: path}, sessions: &sync.Map{}}
}

// The sessions that an inbound's listeners share end with the listeners, also a session that
// xray-core forgets by itself.
func TestXHTTPPlacesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &places{all: map[string]*sharedPlace{}}
		l := newListener("/x")
		l.place = all.join("here", l)
		if l.place.tidy(); len(all.all) != 1 {
			t.Fatal("who listens is forgotten")
		}
		l.sessions.Store("id", nil)
		l.open.open, l.open.none = map[*conn]struct{}{nil: {}}, func() {}
		l.closed.Store(true)
		go l.untilOver()
		synctest.Wait()
		l.open.mu.Lock()
		clear(l.open.open)
		l.open.mu.Unlock()
		time.Sleep(xhttpSessionWait)
		synctest.Wait()
		if len(all.all) != 1 {
			t.Error("a session is left, and the listener is forgotten")
		}
		l.sessions.Delete("id")
		time.Sleep(xhttpSessionWait)
		synctest.Wait()
		if len(all.all) != 0 {
			t.Error("nothing is left, and the listener is kept")
		}
	})
}

// The requests of a session go to one listener, also before it is whole.
func TestXHTTPRequestsOfASession(t *testing.T) {
	all := &places{all: map[string]*sharedPlace{}}
	join := func(path string) *listener {
		l := newListener(path)
		l.place = all.join("here", l)
		return l
	}
	request := func(path string) *http.Request { return httptest.NewRequest(http.MethodPost, path, nil) }
	first := join("/x")
	take := func(r *http.Request, came *listener) (*listener, func()) {
		if owner, done := came.place.known(r, came); owner != nil {
			return owner, done
		}
		owner, done, _ := came.place.begin(r, came, func() bool { return true })
		return owner, done
	}
	owner, firstDone := take(request("/x/s/0"), first)
	if owner != first {
		t.Fatal("the only listener's session is not its own")
	}
	second := join("/x")
	first.closed.Store(true)
	is := func(what, path string, came, want *listener) {
		t.Helper()
		owner, done := take(request(path), came)
		defer done()
		if owner != want {
			t.Errorf("%s: %s is another one's", what, path)
		}
	}
	is("while a request of it is handled", "/x/s/1", second, first)
	is("another session", "/x/t/0", first, second)
	is("a stream of one request", "/x/", first, second)
	firstDone()
	is("forgotten", "/x/s/2", second, second)
	first.sessions.Store("s", nil)
	is("known to xray-core", "/x/s/3", second, first)
	third := join("/y")
	second.closed.Store(true)
	is("an old one, on a path of before", "/x/s/4", first, first)
	is("a new one, on a path of before", "/x/u/0", second, nil)
	is("on the new path, by an old connection", "/y/u/0", first, third)
	if len(first.place.claims) != 0 {
		t.Errorf("claims are left: %v", first.place.claims)
	}
}

// A listener that follows another one on an address gets its place, on a unix socket too.
func TestPlaceOf(t *testing.T) {
	unix := func(name string) net.Addr { return &net.UnixAddr{Name: name, Net: "unix"} }
	for _, row := range [][2]net.Addr{
		{unix("/run/.a~b.sock~AAAAAA"), unix("/run/.a~b.sock~BBBBBB")},
		{unix("@name"), unix("@name")},
		{&net.TCPAddr{IP: net.IPv6zero, Port: 1}, &net.TCPAddr{IP: net.IPv6zero, Port: 1}},
	} {
		if placeOf(row[0]) != placeOf(row[1]) || placeOf(row[0]) == "" {
			t.Errorf("%s is not the place of %s", row[0], row[1])
		}
	}
	if placeOf(unix("/run/.a~AAAAAA")) == placeOf(unix("/run/.b~AAAAAA")) {
		t.Error("two sockets have one place")
	}
}
