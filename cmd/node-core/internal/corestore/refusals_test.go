package corestore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/coreclient/wire"
)

// A refusal of a node is kept with the time of its first report, until the node reports something else.
func TestRefusals(t *testing.T) {
	s := openStore(t)
	ctx := t.Context()
	node, _, err := s.AddNode(ctx, "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(revision int64, tags ...string) {
		t.Helper()
		details := map[string]any{"revision": float64(revision)}
		var parts []any
		for _, tag := range tags {
			parts = append(parts, map[string]any{"kind": "inbound", "tag": tag, "reason": fmt.Sprintf("why, in %d", revision), "retry": true})
		}
		if parts != nil {
			details["parts"] = parts
		}
		if err := s.AddError(ctx, node.ID, "", wire.ErrorRequest{Code: "port_in_use", Message: "words", Details: details}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want string) []Refusal {
		t.Helper()
		all, err := s.Refusals(ctx, node.ID)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range all {
			got = append(got, fmt.Sprintf("%s %s %d", r.Kind, r.Tag, r.SinceRevision))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
		return all
	}
	refuses(2, "a", "b")
	first := has("inbound a 2, inbound b 2")
	time.Sleep(2 * time.Millisecond) // times are in milliseconds
	refuses(3, "b", "c")
	again := has("inbound b 2, inbound c 3")
	if again[0].Since != first[1].Since || again[0].Reason != "why, in 3" || !again[1].Since.After(again[0].Since) {
		t.Errorf("got %+v, then %+v: want the first time and the last reason", first, again)
	}
	if err := s.Applied(ctx, node.ID, "", 2); err != nil { // a report that comes late
		t.Fatal(err)
	}
	has("inbound b 2, inbound c 3")
	refuses(2)                                                                                                   // of a revision that runs: an inbound failed, and nothing is refused
	if err := s.AddError(ctx, node.ID, "", wire.ErrorRequest{Code: "clock_skew", Message: "late"}); err != nil { // of no revision
		t.Fatal(err)
	}
	has("inbound b 2, inbound c 3")
	refuses(4)
	has("  4") // the configuration as a whole
	if err := s.Applied(ctx, node.ID, "", 4); err != nil {
		t.Fatal(err)
	}
	has("")
	// The report that it runs may be lost: the heartbeat says so too.
	refuses(5, "a")
	revision, err := s.Revision(ctx, node.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.ExecContext(ctx, `UPDATE nodes SET last_error_at = 0`); err != nil { // long ago
		t.Fatal(err)
	}
	if _, err := s.Heartbeat(ctx, node.ID, wire.HeartbeatRequest{Revision: &revision}, Daemon{}); err != nil {
		t.Fatal(err)
	}
	has("")
	// The parts that a node sends are bounded, and odd parts are no error.
	parts := []any{7, map[string]any{"kind": 5, "tag": strings.Repeat("ü", 500), "reason": strings.Repeat("x", 9000)}}
	for i := range 500 {
		parts = append(parts, map[string]any{"kind": "inbound", "tag": fmt.Sprint(i)})
	}
	if err := s.AddError(ctx, node.ID, "", wire.ErrorRequest{Code: "x", Message: "y", Details: map[string]any{"revision": float64(9), "parts": parts}}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Refusals(ctx, node.ID)
	if err != nil || len(all) != maxRefusals {
		t.Errorf("%d refusals are kept (%v), want %d", len(all), err, maxRefusals)
	}
	if err := s.RemoveNode(ctx, node.ID); err != nil {
		t.Fatal(err)
	}
	has("")
}
