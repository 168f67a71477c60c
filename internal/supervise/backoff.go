package supervise

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"nodeagent/internal/wait"
)

// Backoff says how long to wait before a process that has ended is started again: not at
// all after the first end, then Min, and then twice as long each time, up to Max. A process
// that ran for Healthy or longer starts the sequence again. It is for one goroutine.
type Backoff struct {
	Min, Max, Healthy time.Duration

	// waits are the waits after the second end and later; nil before the first end.
	waits *backoff.ExponentialBackOff
}

// Next returns how long to wait after the end of a process that ran for ran.
func (b *Backoff) Next(ran time.Duration) time.Duration {
	if b.waits == nil || ran >= b.Healthy {
		b.waits = wait.Doubling(b.Min, b.Max)
		return 0
	}
	return b.waits.NextBackOff()
}
