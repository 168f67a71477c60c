package corestore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// Nodes that are read together look as those that are read one by one, where they are few and where they
// are so many that a statement has a range of ids.
func TestNodesReadTogether(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		store, err := Open(t.Context(), t.TempDir())
		readTogether(t, store, err)
	})
	t.Run("postgres", func(t *testing.T) {
		store, err := OpenPostgres(t.Context(), Postgres{URL: onPostgres(t).Database(t)})
		readTogether(t, store, err)
	})
}

func readTogether(t *testing.T, s *Store, err error) {
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var nodes []Node
	for i := range 4 {
		node, _, err := s.AddNode(t.Context(), fmt.Sprint("node", i), "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
	}
	for _, n := range nodes[1:] {
		if err := s.AddError(t.Context(), n.ID, "", wire.ErrorRequest{Code: "c", Message: "m", Details: map[string]any{"revision": float64(n.Revision), "parts": []any{
			map[string]any{"kind": "outbound", "tag": "b"}, map[string]any{"kind": "inbound", "tag": "a"},
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Applied(t.Context(), nodes[0].ID, "", 5); err != nil {
		t.Fatal(err)
	}
	asked := []int64{nodes[3].ID, nodes[0].ID, nodes[1].ID, nodes[3].ID} // not nodes[2]
	for range 2 {
		progress, err := s.ProgressOf(t.Context(), asked)
		if err != nil || len(progress) != 3 {
			t.Fatalf("got %d nodes, %v", len(progress), err)
		}
		for _, i := range []int{0, 1, 3} {
			n, err := s.NodeByID(t.Context(), nodes[i].ID)
			if err != nil {
				t.Fatal(err)
			}
			refusals, err := s.Refusals(t.Context(), n.ID)
			if err != nil {
				t.Fatal(err)
			}
			want := Progress{n.Name, n.RegisteredAt, n.LastSeenAt, n.AppliedRevision, n.RefusedRevision, refusals}
			if got := progress[n.ID]; fmt.Sprint(inWords(got)) != fmt.Sprint(inWords(want)) {
				t.Errorf("node %d: got %v, want %v", i, inWords(got), inWords(want))
			}
		}
		refusing, err := s.Refusing(t.Context(), asked)
		if err != nil || !slices.Equal(refusing, []int64{nodes[1].ID, nodes[3].ID}) {
			t.Errorf("%v refuse something, %v", refusing, err)
		}
		revisions, err := s.RevisionsOf(t.Context(), asked, false)
		if err != nil || len(revisions) != 3 || revisions[2].Node != nodes[3].ID {
			t.Errorf("got the revisions %v, %v", revisions, err)
		}
		for i := range int64(maxListed) { // of no node
			asked = append(asked, nodes[3].ID+1+i)
		}
	}
	if refusing, err := s.Refusing(t.Context(), nil); err != nil || refusing == nil || len(refusing) > 0 {
		t.Errorf("of no nodes %v refuse something, %v", refusing, err)
	}
}

// inWords has what pointers lead to.
func inWords(p Progress) []any {
	words := []any{p.Name, p.Refusals}
	for _, at := range []*time.Time{p.RegisteredAt, p.LastSeenAt} {
		words = append(words, at != nil && !at.IsZero())
		if at != nil {
			words = append(words, at.UnixMilli())
		}
	}
	for _, revision := range []*int64{p.AppliedRevision, p.RefusedRevision} {
		words = append(words, revision != nil)
		if revision != nil {
			words = append(words, *revision)
		}
	}
	return words
}
