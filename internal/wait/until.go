package wait

import (
	"context"
	"time"
)

// look is how often Until reads the wall clock. A timer runs on a clock that does not move while a
// host is suspended, and that a step of the wall clock does not move.
const look = time.Second

// Until waits for a moment of the wall clock. It returns true when the moment has come, when most has
// passed on the clock of timers, when wake has something to receive, and when the wall clock was
// stepped by more than look, in either direction: the caller finds out what is due. It returns false
// as soon as ctx ends. now is the wall clock, time.Now for nearly all callers; wake may be nil.
func Until(ctx context.Context, now func() time.Time, at time.Time, most time.Duration, wake <-chan struct{}) bool {
	began, wall := time.Now(), now().Round(0)
	for {
		passed, at := time.Since(began), at.Sub(now().Round(0))
		stepped := now().Round(0).Sub(wall) - passed
		left := min(at, most-passed, look)
		if left <= 0 || stepped.Abs() > look {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-wake:
			timer.Stop()
			return ctx.Err() == nil
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
