package corestore

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkAddSubscription measures what one subscription more costs where its group reaches ten
// thousand nodes: their revisions are raised in the same transaction.
func BenchmarkAddSubscription(b *testing.B) {
	s := openSQLite(b)
	for i := range 10_000 {
		if _, _, err := s.AddNode(b.Context(), fmt.Sprintf("node-%d", i), "", time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	user, err := s.AddUser(b.Context(), "u")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, nodes, err := s.AddSubscription(b.Context(), user.ID); err != nil || len(nodes) != 10_000 {
			b.Fatal(len(nodes), err)
		}
	}
}
