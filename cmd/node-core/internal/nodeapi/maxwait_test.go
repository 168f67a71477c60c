package nodeapi

import (
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

// A node whose heartbeats are held for as long as they may be is not taken for offline between two times that
// are stored.
func TestHeldHeartbeatsKeepANodeOnline(t *testing.T) {
	if maxWait+corestore.SeenEvery >= corestore.OfflineAfter {
		t.Errorf("a heartbeat is held for %s, stored %s later, and the node offline after %s", maxWait, corestore.SeenEvery, corestore.OfflineAfter)
	}
}
