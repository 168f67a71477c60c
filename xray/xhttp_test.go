package xray_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// xhttpState has one VLESS inbound over XHTTP with bob.
func (r *rig) xhttpState(listen string) state.State {
	r.t.Helper()
	s := r.parsed(fmt.Sprintf(`{"inbounds":[{"tag":"in-1",%s,"protocol":"vless","settings":{"decryption":"none","clients":[{"id":%q}]},
		"streamSettings":{"network":"xhttp","xhttpSettings":{"path":"/x"}}}]}`, listen, bobID))
	s.Inbounds["in-1"].Clients[0].Slot = 2
	return s
}

// Where it can't listen the change is refused, and what was before goes on.
func TestXHTTPThatCannotListenIsRefused(t *testing.T) {
	r := newRig(t)
	r.apply(r.xhttpState(fmt.Sprintf(`"listen":"127.0.0.1","port":%d`, r.port)))
	socket := filepath.Join(t.TempDir(), "missing", "socket")
	err := r.engine.Apply(t.Context(), r.xhttpState(fmt.Sprintf(`"listen":%q`, socket)))
	if _, ok := errors.AsType[*fault.Fault](err); !ok {
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
