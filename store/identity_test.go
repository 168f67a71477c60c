package store

import (
	"testing"
	"time"
)

// A node that is registered anew at the same Core serves what it served, and asks for
// more; another node begins with nothing.
func TestRegisteredAnew(t *testing.T) {
	for name, c := range map[string]struct {
		next Identity
		kept bool
	}{
		"the same node":      {Identity{CoreURL: "https://core.example", NodeID: "1", AuthKey: "new"}, true},
		"another node":       {Identity{CoreURL: "https://core.example", NodeID: "2", AuthKey: "new"}, false},
		"at another address": {Identity{CoreURL: "https://other.example", NodeID: "1", AuthKey: "new"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			now := time.Now()
			if err := s.SaveIdentity(now, Identity{CoreURL: "https://core.example", NodeID: "1", AuthKey: "old"}); err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(now, nil, History{}.Applied(packed(t, 56), true).Applied(packed(t, 57), true), nil); err != nil {
				t.Fatal(err)
			}
			if err := s.SaveIdentity(now, c.next); err != nil {
				t.Fatal(err)
			}
			history, err := s.History()
			if err != nil || (history.Current != nil) != c.kept || history.Previous != nil {
				t.Fatalf("kept %+v, want a current configuration: %t (%v)", history, c.kept, err)
			}
			if current := history.Current; c.kept && (!history.Unconfirmed || current.Revision != 57 || current.ETag != "" || body(t, current.Body) != `{"revision":57}`) {
				t.Errorf("kept %+v", current)
			}
			if id, err := s.Identity(); err != nil || id.AuthKey != "new" {
				t.Errorf("the identity is %+v, %v", id, err)
			}
		})
	}
}
