package agent

import (
	"fmt"
	"testing"

	"nodeagent/store"
)

// Changes count for the previous configuration as whole configurations do.
func TestPreviousAfterChanges(t *testing.T) {
	change := func(from int64, proved bool) store.Change {
		return store.Change{BaseRevision: from, Revision: from + 1, Proved: proved}
	}
	current, before := &store.Config{Revision: 3}, &store.Config{Revision: 2}
	for name, c := range map[string]struct {
		history store.History
		want    int
	}{
		"none proved":              {store.History{Current: current, Previous: before, Changes: []store.Change{change(3, false), change(4, false)}}, samePrevious},
		"the one before a change":  {store.History{Current: current, Previous: before, Changes: []store.Change{change(3, false), change(4, true), change(5, false)}}, 1},
		"the stored one":           {store.History{Current: current, Changes: []store.Change{change(3, true)}}, 0},
		"back to the previous one": {store.History{Current: current, Previous: &store.Config{Revision: 4}, Changes: []store.Change{change(3, true)}}, noPrevious},
	} {
		if got := previousAfter(c.history); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// A history is settled with the documents that ran, and those are served after a rollback too.
func TestSettledHistory(t *testing.T) {
	w := newWorld()
	w.revision = 1
	bodies := [][]byte{w.body()}
	h := store.History{}.Applied(pack(t, 1, bodies[0]), false)
	h.Current.ETag = w.etag()
	for n, key := range []string{"c", "d", "e"} {
		base := w.etag()
		w.revision++
		w.clients["in-1"][key], w.refs[key] = 1, int64(n+5)
		bodies = append(bodies, w.body())
		d := deltaFrom(t, bodies[n], bodies[n+1], base, w.etag())
		h.Changes = append(h.Changes, store.Change{BaseRevision: w.revision - 1, Base: base, Revision: w.revision, ETag: w.etag(), Delta: d.Append(nil), Proved: n == 1})
	}
	after, body, err := settled(h, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config   *store.Config
		revision int64
	}{"current": {after.Current, 4}, "previous": {after.Previous, 2}} {
		plain, err := c.config.Body.Unpack()
		if err != nil {
			t.Fatal(err)
		}
		if c.config.Revision != c.revision || digestOf(t, plain) != digestOf(t, bodies[c.revision-1]) {
			t.Errorf("the %s configuration is revision %d: %s", name, c.config.Revision, plain)
		}
	}
	if len(after.Changes) != 0 || digestOf(t, body) != digestOf(t, bodies[3]) || after.Current.ETag != w.etag() {
		t.Errorf("history %+v", after)
	}
	h.Changes[1].Delta = h.Changes[2].Delta
	if _, _, err := settled(h, false); err == nil {
		t.Error("changes that do not lead to their digest are taken")
	}
}

func digestOf(t *testing.T, body []byte) string {
	t.Helper()
	h, err := newHeld(body, "")
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(h.digest)
}
