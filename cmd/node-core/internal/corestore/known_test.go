package corestore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/coreclient/wire"
)

// beating is a node and what it says in its heartbeats.
type beating struct {
	id   int64
	key  string
	says wire.HeartbeatRequest
	from Daemon
}

// After any sequence of edits and reports, the memory of a node has the same content as the database.
func TestKnownNodesAreAsTheDatabaseSays(t *testing.T) {
	s := openSQLite(t)
	user, err := s.AddUser(t.Context(), "u")
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	rapid.Check(t, func(r *rapid.T) {
		must := func(err error) {
			if err != nil {
				r.Fatal(err)
			}
		}
		ctx := t.Context()
		var nodes []*beating
		register := func(n *beating) {
			code, err := s.NewCode(ctx, n.id, time.Hour)
			must(err)
			_, n.key, err = s.Register(ctx, wire.RegisterRequest{Code: code, Name: "n", Host: "h", IP: "192.0.2.1"}, "")
			must(err)
		}
		for range 2 {
			made++
			added, _, err := s.AddNode(ctx, fmt.Sprintf("node-%d", made), "", time.Hour)
			must(err)
			n := &beating{id: added.ID, says: wire.HeartbeatRequest{IP: "192.0.2.1", Revision: &added.Revision}, from: Daemon{Boot: "a"}}
			register(n)
			for range 2 {
				_, err := beatOnce(ctx, s, n.id, n.says, n.from)
				must(err)
			}
			nodes = append(nodes, n)
		}
		revision := func(n *beating) int64 {
			newest, err := s.Revision(ctx, n.id)
			must(err)
			return newest
		}
		of := rapid.SampledFrom(nodes)
		actions := map[string]func(*rapid.T){
			"heartbeat": func(r *rapid.T) {
				n := of.Draw(r, "node")
				_, err := beatOnce(ctx, s, n.id, n.says, n.from)
				must(err)
			},
			"another daemon": func(r *rapid.T) { of.Draw(r, "node").from.Boot = rapid.SampledFrom([]string{"a", "b"}).Draw(r, "boot") },
			"another address": func(r *rapid.T) {
				of.Draw(r, "node").says.IP = rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2"}).Draw(r, "ip")
			},
			"runs the newest": func(r *rapid.T) { n := of.Draw(r, "node"); newest := revision(n); n.says.Revision = &newest },
			"versions": func(r *rapid.T) {
				n := of.Draw(r, "node")
				n.from.Agent += "1"
				must(s.NoteAgent(ctx, n.id, n.from.Agent, false))
			},
			"another document": func(r *rapid.T) {
				n := of.Draw(r, "node")
				must(s.NoteDocument(ctx, n.id, revision(n), fmt.Sprint(revision(n))))
			},
			"applied": func(r *rapid.T) { n := of.Draw(r, "node"); must(s.Applied(ctx, n.id, "", revision(n))) },
			"failed":  func(r *rapid.T) { must(s.AddError(ctx, of.Draw(r, "node").id, "", wire.ErrorRequest{Message: "m"})) },
			"an edit": func(*rapid.T) {
				_, _, err := s.AddSubscription(ctx, user.ID)
				must(err)
			},
			"an edit of the node": func(r *rapid.T) {
				_, _, err := s.EditNode(ctx, fmt.Sprint(of.Draw(r, "node").id), func(n *Node) error { n.Enabled = !n.Enabled; return nil })
				must(err)
			},
			"offers a key":      func(r *rapid.T) { must(s.RotateKey(ctx, of.Draw(r, "node").id)) },
			"registered again":  func(r *rapid.T) { register(of.Draw(r, "node")) },
			"goes offline":      func(*rapid.T) { must(s.lookAtNodes(ctx, time.Now().Add(2*OfflineAfter), time.Time{})) },
			"stores what waits": func(*rapid.T) { must(s.storeSeen(ctx)) },
			"takes the key": func(r *rapid.T) {
				n := of.Draw(r, "node")
				if b, _, err := s.QuietBeat(ctx, n.id, n.says, n.from); err == nil && b.NextKey != "" {
					n.key = b.NextKey
				}
			},
		}
		type answers struct {
			id    int64
			known bool // the key is one
			beat  Beat
			quiet bool
		}
		ask := func() (all []answers) {
			for _, n := range nodes {
				id, err := s.Authenticate(ctx, n.key)
				if !errors.Is(err, ErrNotFound) {
					must(err)
				}
				beat, quiet, errBeat := s.QuietBeat(ctx, n.id, n.says, n.from)
				must(errBeat)
				all = append(all, answers{id, err == nil, beat, quiet})
			}
			return all
		}
		compare := func() {
			known := ask()
			s.known.forgetAll()
			if asked := ask(); !slices.Equal(known, asked) {
				r.Fatalf("known are %+v; the database says %+v", known, asked)
			}
		}
		compare()
		names := slices.Sorted(maps.Keys(actions))
		for range rapid.IntRange(1, 6).Draw(r, "steps") {
			actions[rapid.SampledFrom(names).Draw(r, "action")](r)
			compare()
		}
	})
}

// A quiet heartbeat that says the same again asks the database nothing. A key that is no longer the
// node's is refused at once, and a node that is away is forgotten.
func TestQuietHeartbeatsAskNothing(t *testing.T) {
	s := openSQLite(t)
	node, code, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := s.Register(t.Context(), wire.RegisterRequest{Code: code, Name: "fra1", Host: "h", IP: "192.0.2.1"}, "")
	if err != nil {
		t.Fatal(err)
	}
	says, from := wire.HeartbeatRequest{IP: "192.0.2.1", Revision: &node.Revision}, Daemon{Boot: "a"}
	for range 2 { // the first one is not quiet
		if id, err := s.Authenticate(t.Context(), key); err != nil || id != node.ID {
			t.Fatal(id, err)
		}
		if _, err := beatOnce(t.Context(), s, node.ID, says, from); err != nil {
			t.Fatal(err)
		}
	}
	reader := s.read
	s.read = nil // a question would panic
	id, err := s.Authenticate(t.Context(), key)
	_, quiet, errBeat := s.QuietBeat(t.Context(), node.ID, says, from)
	s.read = reader
	if err != nil || errBeat != nil || id != node.ID || !quiet {
		t.Errorf("got node %d, %v, quiet %t, %v", id, err, quiet, errBeat)
	}
	s.known.nodes[node.ID].until = time.Now().Add(-time.Second)
	s.known.forgetAway()
	if len(s.known.nodes)+len(s.known.keys) != 0 {
		t.Errorf("%d nodes and %d keys are left of a node that is away", len(s.known.nodes), len(s.known.keys))
	}
	if _, err := s.Authenticate(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNode(t.Context(), node.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), key); !errors.Is(err, ErrNotFound) {
		t.Errorf("the key of a node that was removed: %v", err)
	}
}

// An instance that hears nothing any more keeps nothing, also where a request keeps something at that moment.
func TestHearingEndsAtOnce(t *testing.T) {
	var k knownNodes
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				k.keepKey(1, k.moment(), keyHash{1})
			}
		}
	}()
	for range 300_000 {
		k.hear(true)
		k.hear(false)
		if _, known := k.byKey(keyHash{1}); known {
			t.Error("a key was kept")
			break
		}
	}
	close(stop)
	<-ended
}

// Where the database's answer to the use of an offered key is lost, no earlier key is taken from memory.
func TestALostAnswerForgetsKeys(t *testing.T) {
	s := openSQLite(t)
	s.known.keepKey(1, s.known.moment(), keyHash{1})
	lost, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.takeNextKey(lost, []byte{2}); err == nil {
		t.Fatal("it was stored")
	}
	if _, known := s.known.byKey(keyHash{1}); known {
		t.Error("a key was kept")
	}
}
