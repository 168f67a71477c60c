package nodeapi

import (
	"testing"
	"testing/synctest"
	"time"
)

// A heartbeat is held for as long as it says, or a little less, and those that end at about the same time end
// together.
func TestHoldsEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holds
		begin := time.Now()
		ended := make(chan time.Duration)
		const each = 20
		for i := range 3 * each {
			within := 5*time.Second + time.Duration(i)*holdsEvery/each
			go func() {
				<-h.end(within)
				at := time.Since(begin)
				if at > within || within-at >= holdsEvery {
					t.Errorf("held for %s, want %s", at, within)
				}
				ended <- at
			}()
		}
		moments := map[time.Duration]bool{}
		for range 3 * each {
			moments[<-ended] = true
		}
		if len(moments) != 3 {
			t.Errorf("they end at %d moments, want 3", len(moments))
		}
		synctest.Wait()
		if len(h.moments) != 0 {
			t.Errorf("%d moments are left", len(h.moments))
		}
		select {
		case <-h.end(0):
		default:
			t.Error("a heartbeat that is not to be held is")
		}
	})
}
