package supervise

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"nodeagent/internal/wait"
)

// Backoff tells how long to wait before a process that has ended is started again: not at
// all the first time, then Min, and then twice as long each time, up to Max. A process that
// ran for Healthy or longer begins anew. It is for one goroutine.
type Backoff struct {
	Min, Max, Healthy time.Duration

	// waits are those after the first end, nil before it.
	waits *backoff.ExponentialBackOff
}

// Next returns the wait after the end of a process that ran for that long.
func (b *Backoff) Next(ran time.Duration) time.Duration {
	if b.waits == nil || ran >= b.Healthy {
		b.waits = wait.Doubling(b.Min, b.Max)
		return 0
	}
	return b.waits.NextBackOff()
}
