package supervise

import "time"

// Backoff tells how long to wait before a process that ended is started again:
// not at all the first time, then twice as long each time up to Max. One that
// ran for Healthy begins anew.
type Backoff struct {
	Min, Max, Healthy time.Duration

	failures int
}

// Next returns the wait after a process that ran for that long has ended.
func (b *Backoff) Next(ran time.Duration) time.Duration {
	if ran >= b.Healthy {
		b.failures = 0
	}
	b.failures++
	if b.failures == 1 {
		return 0
	}
	wait := b.Min
	for range b.failures - 2 {
		if wait *= 2; wait >= b.Max {
			return b.Max
		}
	}
	return wait
}
