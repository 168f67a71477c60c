package wait

import (
	"slices"
	"testing"
	"time"
)

func TestDoubling(t *testing.T) {
	for _, test := range []struct {
		first, most time.Duration
		want        []time.Duration
	}{
		{1, 60, []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}},
		{15, 60, []time.Duration{15, 30, 60, 60}},
		{40, 60, []time.Duration{40, 60, 60}},
		{60, 60, []time.Duration{60, 60}},
	} {
		waits := Doubling(test.first*time.Second, test.most*time.Second)
		for range 2 {
			var got []time.Duration
			for range test.want {
				got = append(got, waits.NextBackOff()/time.Second)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("from %d to %d seconds: %d, want %d", test.first, test.most, got, test.want)
			}
			waits.Reset()
		}
	}
}

// Waits that have grown for days stay at their most.
func TestDoublingDoesNotOverflow(t *testing.T) {
	waits := Doubling(time.Second, time.Minute)
	for range 10_000 {
		if wait := waits.NextBackOff(); wait < time.Second || wait > time.Minute {
			t.Fatalf("a wait of %s", wait)
		}
	}
}
