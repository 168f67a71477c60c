package agent

import (
	"fmt"
	"time"

	"nodeagent/coreclient/wire"
)

// maxSkew is how far the clock may be off before Core is told: beyond it, REALITY
// and VMess reject clients without saying why.
const maxSkew = time.Minute

func (a *Agent) checkClock(skew time.Duration, heartbeat error) {
	if heartbeat != nil || skew.Abs() <= maxSkew {
		return
	}
	// Rounded, so that a steady skew is one failure and not one a second.
	rounded := skew.Round(time.Minute)
	a.reporter.Failed(wire.CodeClockSkew,
		fmt.Sprintf("this host's clock is about %s ahead of Core's; set it (timedatectl set-ntp true)", rounded),
		map[string]any{"skewSeconds": int64(skew.Seconds())})
}
