package pulse

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Monitor
		check := func(want string) {
			t.Helper()
			if got := m.Stuck(); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Fatalf("stuck: %q, want %q", got, want)
			}
		}
		check("")
		loop, other := m.Begin("read", time.Minute), m.Begin("apply", 10*time.Minute)
		time.Sleep(time.Minute)
		check("")
		time.Sleep(time.Second)
		check("read has gone on for 1m1s")
		loop.Step()
		check("")
		loop.Do("wait", 0) // without a limit
		time.Sleep(9 * time.Minute)
		check("apply has gone on for 10m1s")
		other.End()
		check("")
		var none *Beat
		none.Do("nothing", time.Second)
		none.Step()
		none.End()
		check("")
	})
}
