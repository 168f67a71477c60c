package agent

import (
	"fmt"
	"testing"

	"nodeagent/coreclient"
	"nodeagent/telemt"
	"nodeagent/xray"
	"nodeagent/xray/state"
)

// edited returns a node that runs a document, and a next document that lets in another client and
// one less.
func edited(t *testing.T) (n *node, w *world, before []byte, beforeTag string) {
	t.Helper()
	n = newNode(t, openStore(t))
	n.compareFrom = 0
	w = newWorld()
	w.revision, w.mtproto["a"] = 1, 1
	before, beforeTag = w.body(), w.etag()
	if refused := n.tryApply(t.Context(), before, beforeTag); refused != nil {
		t.Fatal(refused.reason)
	}
	w.revision++
	w.clients["in-1"]["c"], w.refs["c"] = 1, 3
	delete(w.clients["in-1"], "b")
	return n, w, before, beforeTag
}

// A change of clients over which the worker ends is tried once, and refused until its pause is over:
// the whole document would end the next worker too. Clients that it does not let in are out.
func TestAFatalChangeIsTriedOnce(t *testing.T) {
	apply := map[string]func(n *node, w *world, before []byte, beforeTag string) error{
		"a delta": func(n *node, w *world, before []byte, beforeTag string) error {
			return n.applyDelta(t.Context(), deltaFrom(t, before, w.body(), beforeTag, w.etag()).Append(nil))
		},
		"a document": func(n *node, w *world, _ []byte, _ string) error {
			n.applyFetched(t.Context(), coreclient.Update{Body: w.body(), ETag: w.etag(), Changed: true})
			return nil
		},
	}
	for name, apply := range apply {
		t.Run(name, func(t *testing.T) {
			n, w, before, beforeTag := edited(t)
			tries := 0
			n.engine.fail = func(s state.State) error {
				for _, c := range s.Inbounds["in-1"].Clients {
					if c.Key == "c" {
						tries++
						return fmt.Errorf("add_users: %w", xray.ErrFatalChange)
					}
				}
				return nil
			}
			if err := apply(n, w, before, beforeTag); err != nil {
				t.Fatal(err)
			}
			refused := n.sync.refusedConfig()
			if tries != 1 || refused == nil || refused.etag != w.etag() || refused.crashes != 1 {
				t.Fatalf("it was tried %d times, and the refusal is %v", tries, refused != nil)
			}
			if in := n.running.xray.Inbounds["in-1"].Clients; len(in) != 1 || in[0].Key != "a" {
				t.Errorf("in-1 lets in %+v", in)
			}
			n.engine.fail = nil
			n.applyAgain(t.Context(), refused)
			if in := n.running.xray.Inbounds["in-1"].Clients; n.sync.refusedConfig() != nil || len(in) != 2 {
				t.Errorf("after the next try in-1 lets in %+v", in)
			}
		})
	}
}

// Where telemt is missing, a change of clients is applied once, with the whole document: it is not
// stored as a change before.
func TestAChangeWithoutTelemt(t *testing.T) {
	n, w, before, beforeTag := edited(t)
	n.mtproto.status = telemt.Status{Inbounds: []telemt.InboundStatus{{Tag: "mt-4", Missing: true, Error: "telemt is missing"}}}
	if err := n.applyDelta(t.Context(), deltaFrom(t, before, w.body(), beforeTag, w.etag()).Append(nil)); err != nil {
		t.Fatalf("the delta can't be used: %v", err)
	}
	refused := n.sync.refusedConfig()
	if refused == nil || refused.etag != w.etag() || len(refused.parts) != 1 || refused.parts[0].Tag != "mt-4" {
		t.Errorf("the parts that wait for telemt are not the only ones refused: %v", refused != nil)
	}
	if in := n.running.xray.Inbounds["in-1"].Clients; len(in) != 2 || in[1].Key != "c" {
		t.Errorf("in-1 lets in %+v", in)
	}
}
