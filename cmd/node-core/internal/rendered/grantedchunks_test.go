package rendered

import (
	"fmt"
	"slices"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// A grant that comes, changes or goes is rendered with one chunk, and other changes render no chunk with
// grants.
func TestAGrantChangesOneChunk(t *testing.T) {
	var clients []*corestore.Client
	for id := range int64(4000) {
		clients = append(clients, &corestore.Client{ID: id + 1, UUID: fmt.Sprint(id), GroupID: 1})
	}
	s := &snapshot{groups: map[int64][]*chunk{1: chunksOf(clients), 2: chunksOf([]*corestore.Client{{ID: 9000, GroupID: 2}})}}
	var made map[*chunk]grantedChunk
	var now *snapshot
	grants := map[int64]*corestore.Grant{}
	next := func(what string, differ int) {
		t.Helper()
		before := now
		if before == nil {
			before = s
		}
		given := map[int64]*corestore.Grant{} // as another look into the database has them
		for id, g := range grants {
			given[id] = new(*g)
		}
		now, made = s.with(given, made)
		other := 0
		for group, chunks := range now.groups {
			for _, c := range chunks {
				if !slices.Contains(before.groups[group], c) {
					other++
				}
				for _, client := range c.clients {
					want := grants[client.ID]
					if (want == nil) != (client.Grant == nil) || want != nil && *want != *client.Grant {
						t.Fatalf("%s: client %d has the grant %v, want %v", what, client.ID, client.Grant, want)
					}
				}
			}
		}
		if other != differ {
			t.Errorf("%s: %d chunks are made, want %d", what, other, differ)
		}
	}
	grants[9000] = &corestore.Grant{ID: "a", Bytes: 1}
	grants[17] = &corestore.Grant{ID: "a", Bytes: 1}
	next("two grants", 2)
	next("nothing", 0)
	grants[3999] = &corestore.Grant{ID: "a", Bytes: 1}
	next("one more", 1)
	grants[17].Bytes++
	next("one with more bytes", 1)
	delete(grants, 9000)
	next("one less", 1) // the chunk without grants again
	last := s.groups[1][len(s.groups[1])-1]
	s = &snapshot{groups: map[int64][]*chunk{1: edited(s.groups[1], nil, []*corestore.Client{{ID: 4001, GroupID: 1}}), 2: s.groups[2]}}
	if last == s.groups[1][len(s.groups[1])-1] {
		t.Fatal("the last chunk is the same")
	}
	next("another client in a chunk with a grant", 1)
}
