package traffic

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// A stream that waits for a rate continues with the new rate, or at once if the rate is gone.
func TestOtherRatesHoldForWhoWaits(t *testing.T) {
	const slow = 1000 // bytes a second
	for name, c := range map[string]struct {
		change func(*Registry, *limitGroup)
		after  time.Duration // until the burst has passed, after the slow rate applied for one second
	}{
		"a lifted one": {func(_ *Registry, g *limitGroup) { g.set(bounds{limits: state.Limits{}}) }, 0},
		"a higher one": {func(_ *Registry, g *limitGroup) { g.set(bounds{limits: state.Limits{RateUpBitsPerSecond: 80 * slow}}) }, minBurst * time.Second / (10 * slow)},
		"of nobody":    {func(r *Registry, g *limitGroup) { r.leaveGroupLocked(g) }, 0},
		"the same":     {func(_ *Registry, g *limitGroup) { g.set(bounds{limits: state.Limits{RateUpBitsPerSecond: 8 * slow}}) }, (minBurst - slow) * time.Second / slow},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewRegistry(func(ipc.Message) {})
				g := r.joinGroupLocked(state.Client{Group: "g", Limits: state.Limits{RateUpBitsPerSecond: 8 * slow}})
				if err := g.wait(t.Context(), &g.up, minBurst); err != nil {
					t.Fatal(err)
				}
				passed := make(chan time.Time, 1)
				go func() {
					if err := g.wait(t.Context(), &g.up, minBurst); err != nil {
						t.Error(err)
					}
					passed <- time.Now()
				}()
				time.Sleep(time.Second)
				synctest.Wait()
				began := time.Now()
				c.change(r, g)
				if took := (<-passed).Sub(began); took < c.after-time.Millisecond || took > c.after+time.Millisecond {
					t.Errorf("it passed after %s, want %s", took, c.after)
				}
			})
		})
	}
}

// If a rate changes several times, all waiting streams take as long as with the last rate.
func TestManyWaitByTheNewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters, rate = 100, 10 * minBurst // bytes a second, in the end
		r := NewRegistry(func(ipc.Message) {})
		g := r.joinGroupLocked(state.Client{Group: "g", Limits: state.Limits{RateUpBitsPerSecond: 8 * rate}})
		var waiting sync.WaitGroup
		for range waiters {
			waiting.Go(func() {
				if err := g.wait(t.Context(), &g.up, minBurst); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		for change := range int64(5) {
			g.set(bounds{limits: state.Limits{RateUpBitsPerSecond: 8 * (rate + 4 - change)}})
			synctest.Wait()
		}
		waiting.Wait()
		if took, want := time.Since(began), waiters*minBurst*time.Second/rate; took > want+time.Millisecond {
			t.Errorf("all are through after %s, want %s", took, want)
		}
	})
}

// A stream that ends while it waits uses up nothing of the rate.
func TestWhoGivesUpTakesNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRegistry(func(ipc.Message) {})
		g := r.joinGroupLocked(state.Client{Group: "g", Limits: state.Limits{RateDownBitsPerSecond: 8 * minBurst}})
		if err := g.wait(t.Context(), &g.down, minBurst); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := g.wait(ctx, &g.down, minBurst); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		if err := g.wait(t.Context(), &g.down, minBurst); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second+time.Millisecond {
			t.Errorf("the next one passed after %s, want a second", took)
		}
	})
}
