package main

import (
	"bytes"
	"testing"
	"time"

	"nodeagent/internal/secret"
	"nodeagent/store"
)

// The key of stateless resets, which workers also pass datagrams with, stays while Core changes the
// auth key, and does not give the secret of the workers away.
func TestResetKeyOutlivesTheAuthKey(t *testing.T) {
	db, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	keys := [2][]byte{}
	for i, auth := range []secret.Text{"the key before", "the key after"} {
		if err := db.SaveIdentity(time.Now(), store.Identity{NodeID: "node", AuthKey: auth}); err != nil {
			t.Fatal(err)
		}
		workers, err := db.WorkerSecret()
		if err != nil {
			t.Fatal(err)
		}
		if keys[i] = resetKey(workers); len(keys[i]) != 32 || bytes.Equal(keys[i], workers) {
			t.Errorf("the key is %x, the secret %x", keys[i], workers)
		}
	}
	if !bytes.Equal(keys[0], keys[1]) {
		t.Errorf("the key was %x, and is %x", keys[0], keys[1])
	}
}
