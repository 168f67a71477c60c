package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/store"
)

// A Core that hangs does not delay a stop. What waits for it is tried before the engines end,
// and with them the ports close; nobody waits for it afterwards.
func TestStopDoesNotWaitForAHungCore(t *testing.T) {
	for name, waits := range map[string]bool{"with something that waits": true, "with nothing that waits": false} {
		t.Run(name, func(t *testing.T) {
			db := openStore(t)
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, db)
				n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- n.Run(ctx) }()
				time.Sleep(10 * time.Second)
				n.core.mu.Lock()
				n.core.postContext = func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}
				n.core.mu.Unlock()
				mostClosed := lastAnswer // for the rows of this minute
				if waits {
					n.reporter.Failed(wire.CodeStoreFailed, "so that something waits for Core", nil)
					mostClosed = 0
				}
				n.counters.add(0, 10, 20)
				n.counters.add(1, 10, 20)
				time.Sleep(5 * time.Second)
				stopped := time.Now()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if took := time.Since(stopped); took > lastAnswer {
					t.Errorf("the stop took %s, want at most %s", took, lastAnswer)
				}
				if took := time.Since(n.engine.ended); took > mostClosed {
					t.Errorf("the ports were closed for %s before the end, want at most %s", took, mostClosed)
				}
				if waiting, err := db.Waiting(); err != nil || waiting.Batches[store.KindUsage] != 1 {
					t.Errorf("what Core did not take is gone: %+v, %v", waiting, err)
				}
			})
		})
	}
}

// A Core that answers gets what was counted last.
func TestStopDeliversToACoreThatAnswers(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.core.config, n.core.etag, n.core.heartbeat = nodeConfig(t, 3, 443), `"3"`, behind(3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(10 * time.Second)
		n.counters.add(0, 10, 20)
		n.counters.add(1, 10, 20)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(n.core.posted(wire.PathUsage)) != 1 {
			t.Errorf("Core got %d usage batches, want the last one", len(n.core.posted(wire.PathUsage)))
		}
	})
}
