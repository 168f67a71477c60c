package xray

import (
	"errors"
	"slices"
	"testing"
	"time"

	"nodeagent/internal/supervise"
)

// Who answers no ping hangs where it does nothing or computes alone: not where it
// has a crowd to serve, too little of the processor, or a disk to wait for.
func TestHangs(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		perLook supervise.Activity // what one look finds more than the one before
		want    error
	}{
		"stands still":                 {supervise.Activity{Asleep: true}, errStandsStill},
		"spins on one processor":       {supervise.Activity{User: 150 * ms, Calls: 1}, errSpins},
		"spins on two":                 {supervise.Activity{User: 300 * ms, Datagrams: 1}, errSpins},
		"waits for a disk":             {supervise.Activity{}, nil},
		"gets little of the processor": {supervise.Activity{User: 40 * ms}, nil},
		"shakes hands over TCP":        {supervise.Activity{User: 290 * ms, Calls: 60}, nil},
		"shakes hands over QUIC":       {supervise.Activity{User: 290 * ms, Datagrams: 30}, nil},
		"moves datagrams":              {supervise.Activity{User: 90 * ms, System: 60 * ms, Datagrams: 900}, nil},
		"moves bytes":                  {supervise.Activity{User: 10 * ms, System: 140 * ms, Calls: 20_000}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			looks := []supervise.Activity{{}}
			for range hangLooks {
				last := looks[len(looks)-1]
				looks = append(looks, supervise.Activity{
					Asleep: c.perLook.Asleep, User: last.User + c.perLook.User, System: last.System + c.perLook.System,
					Calls: last.Calls + c.perLook.Calls, Datagrams: last.Datagrams + c.perLook.Datagrams,
				})
			}
			if got := hangs(looks); !errors.Is(got, c.want) {
				t.Errorf("it is said: %v, want %v", got, c.want)
			}
			for _, unknown := range []func(*supervise.Activity){
				func(a *supervise.Activity) { a.Calls = -1 }, func(a *supervise.Activity) { a.Datagrams = -1 },
			} {
				partly := slices.Clone(looks)
				unknown(&partly[hangLooks])
				if errors.Is(hangs(partly), errSpins) {
					t.Error("it is said to spin, and not all is known of it")
				}
			}
		})
	}
	awake := []supervise.Activity{{Asleep: true}, {Asleep: true}, {}, {Asleep: true}}
	if got := hangs(awake); got != nil {
		t.Errorf("of one that was awake at a look it is said: %v", got)
	}
}
