package agent

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// maxSkew is how far this host's clock may be off before Core is told. REALITY and VMess
// reject clients silently where the two clocks differ by more.
const maxSkew = time.Minute

// checkClock reports a clock that is off, once until it is right again. skew was measured
// with a heartbeat, whose error is heartbeat.
func (a *Agent) checkClock(skew time.Duration, heartbeat error) {
	if heartbeat != nil {
		return
	}
	if skew.Abs() <= maxSkew {
		a.troubles.note(troubleClock, nil)
		return
	}
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	off := fmt.Errorf("this host's clock is about %s %s Core's; set it (timedatectl set-ntp true)", skew.Abs().Round(time.Second), side)
	if a.troubles.note(troubleClock, off) {
		a.reporter.Failed(wire.CodeClockSkew, off.Error(), map[string]any{"skewSeconds": int64(skew.Seconds())})
	}
}
