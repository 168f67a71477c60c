package worker

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"nodeagent/xray"
)

// xhttpState has one VLESS inbound over XHTTP with bob.
func (r *rig) xhttpState(listen string) xray.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/x"}}}]}`, listen, bobID))
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

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

// Where it can't listen the change is refused, and what was before goes on.
func TestXHTTPThatCannotListenIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply(r.xhttpState(fmt.Sprintf(`"listen":"127.0.0.1","port":%d`, r.port)))
	socket := filepath.Join(t.TempDir(), "missing", "socket")
	err := r.engine.Apply(t.Context(), r.xhttpState(fmt.Sprintf(`"listen":%q`, socket)))
	if _, ok := errors.AsType[*xray.OperationError](err); !ok {
		t.Errorf("error %v", err)
	}
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/elsewhere", r.port))
	if err != nil {
		t.Fatal(err)
	}
	if _ = answer.Body.Close(); answer.StatusCode != http.StatusNotFound {
		t.Errorf("the one before answers %s", answer.Status)
	}
}
