package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// A command without --wait asks only about nodes that refuse something, and not at all where none does.
func TestNodesAskedAbout(t *testing.T) {
	asked := []int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var args coreapi.WaitArgs
		if err := json.NewDecoder(r.Body).Decode(&args); err != nil {
			t.Error(err)
		}
		if args.Refusing != nil {
			t.Error("the request has a member that an earlier version of Core refuses")
		}
		states := []coreapi.NodeState{}
		for _, n := range args.Nodes {
			asked = append(asked, n.Node)
			states = append(states, coreapi.NodeState{Node: n.Node, State: coreapi.Runs})
		}
		_ = json.NewEncoder(w).Encode(states)
	}))
	defer server.Close()
	client, err := coreapi.OverHTTPS(server.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for name, c := range map[string]struct {
		refusing []int64
		wait     bool
		asked    []int64
	}{
		"an earlier version of Core": {refusing: nil, asked: []int64{1, 2, 3}},
		"none refuses":               {refusing: []int64{}, asked: []int64{}},
		"one refuses":                {refusing: []int64{2}, asked: []int64{2}},
		"with --wait":                {refusing: []int64{2}, wait: true, asked: []int64{1, 2, 3}},
	} {
		asked = []int64{}
		s := &shared{std: streams{out: io.Discard, err: io.Discard}}
		change := coreapi.Change{Nodes: []coreapi.Revision{{Node: 1}, {Node: 2}, {Node: 3}}, Refusing: c.refusing}
		if err := s.waitFor(t.Context(), client, change, c.wait, time.Second); err != nil || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: it asked about %v, want %v (%v)", name, asked, c.asked, err)
		}
	}
}
