package wait

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Doubling returns the waits between tries of something that fails: first, then twice as long
// after each failure, up to most. Its method NextBackOff returns the next wait; Reset begins
// anew with first. The waits have no jitter: a caller that needs one adds it, so that tests
// have exact times. They are for one goroutine.
func Doubling(first, most time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 2, MaxInterval: most}
}
