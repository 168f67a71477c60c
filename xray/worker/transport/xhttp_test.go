package transport

import (
	"net"
	"net/http"
	"sync"
	"testing"
)

// What an inbound's listeners keep together ends with them.
func TestXHTTPPlacesEnd(t *testing.T) {
	place := (&places{all: map[string]*xhttpPlace{}}).join("here", &xhttpListener{sessions: &sync.Map{}})
	if len(place.list()) != 1 || place.list()[0].over() {
		t.Fatal("who listens is over")
	}
	l := place.list()[0]
	l.closed.Store(true)
	l.sessions.Store("id", nil)
	if l.over() {
		t.Error("a session is left and it is over")
	}
	l.sessions.Delete("id")
	l.conns.Store(1)
	if l.over() {
		t.Error("a connection is left and it is over")
	}
	l.conns.Store(0)
	if place.tidy(); len(place.list()) != 0 {
		t.Error("it is kept")
	}
}

// A member of xray-core's that is not what it was is an error, not a crash.
func TestMemberOf(t *testing.T) {
	type lender struct{ server http.Server }
	lends := &lender{}
	if server, err := memberOf[http.Server](lends, "server"); err != nil || server != &lends.server {
		t.Errorf("%v", err)
	}
	for _, of := range []any{nil, 1, lender{}, &lender{}, new(int)} {
		if _, err := memberOf[sync.Map](of, "server"); err == nil {
			t.Errorf("%T has a map for a server", of)
		}
	}
	if _, err := memberOf[http.Server](&lender{}, "gone"); err == nil {
		t.Error("a member that is not there was found")
	}
}

// Who listens on an address after another has its place, on a unix socket too.
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
