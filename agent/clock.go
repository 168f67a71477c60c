package agent

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// maxSkew is how far this host's clock may be off before Core is told. REALITY and VMess
// reject clients silently where the two clocks differ by more.
const maxSkew = time.Minute

// checkClock reports a clock that is off. skew was measured with a heartbeat, whose error is
// heartbeat.
func (a *Agent) checkClock(skew time.Duration, heartbeat error) {
	if heartbeat != nil || skew.Abs() <= maxSkew {
		return
	}
	// Rounded, so that a skew that changes by seconds stays one failure with one message.
	rounded := skew.Round(time.Minute)
	a.reporter.Failed(wire.CodeClockSkew,
		fmt.Sprintf("this host's clock is about %s ahead of Core's; set it (timedatectl set-ntp true)", rounded),
		map[string]any{"skewSeconds": int64(skew.Seconds())})
}
