package corestore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"nodeagent/cmd/node-core/internal/periods"
)

// Terms are what a plan and a subscription have alike: where the subscription lets in, and how
// far. A number of 0 is no limit.
type Terms struct {
	GroupID int64 `json:"groupId"`
	// LimitBytes bounds the bytes up and down together of one period.
	LimitBytes int64 `json:"limitBytes"`
	// Period is how often the count of bytes begins again, one of Periods.
	Period           string `json:"period"`
	LimitIPs         int64  `json:"limitIps"`
	LimitConnections int64  `json:"limitConnections"`
	// LimitDevices bounds the devices that may fetch the subscription's own link. Nodes do not know of it.
	LimitDevices          int64 `json:"limitDevices"`
	RateUpBitsPerSecond   int64 `json:"rateUpBitsPerSecond"`
	RateDownBitsPerSecond int64 `json:"rateDownBitsPerSecond"`
}

// Periods are the periods after which a subscription's bytes are counted anew. They begin at
// midnight in Core's time zone (Timezone): a week on Monday, a rolling month on the day of the
// month on which the subscription was added.
var Periods = []string{periods.None, periods.Day, periods.Week, periods.Month, periods.Rolling}

// Check refuses terms that mean nothing.
func (t Terms) Check() error {
	if !slices.Contains(Periods, t.Period) {
		return fmt.Errorf("period %q is unknown: want one of %s", t.Period, strings.Join(Periods, ", "))
	}
	for name, value := range map[string]int64{
		"limit of bytes": t.LimitBytes, "limit of addresses": t.LimitIPs, "limit of connections": t.LimitConnections, "limit of devices": t.LimitDevices,
		"rate up": t.RateUpBitsPerSecond, "rate down": t.RateDownBitsPerSecond,
	} {
		if value < 0 {
			return fmt.Errorf("the %s is %d: want 0 for none, or more", name, value)
		}
	}
	if t.LimitDevices > MaxDevices {
		return fmt.Errorf("the limit of devices is %d: want at most %d", t.LimitDevices, MaxDevices)
	}
	return nil
}

const termColumns = `group_id, limit_bytes, period, limit_ips, limit_connections, limit_devices, rate_up, rate_down`

// columns returns where the columns of termColumns are read to.
func (t *Terms) columns() []any {
	return []any{&t.GroupID, &t.LimitBytes, &t.Period, &t.LimitIPs, &t.LimitConnections, &t.LimitDevices, &t.RateUpBitsPerSecond, &t.RateDownBitsPerSecond}
}

// values returns what is written to the columns of termColumns.
func (t Terms) values() []any {
	return []any{t.GroupID, t.LimitBytes, t.Period, t.LimitIPs, t.LimitConnections, t.LimitDevices, t.RateUpBitsPerSecond, t.RateDownBitsPerSecond}
}

// withDefaults is t in the default group, without a period, where it names none.
func (t Terms) withDefaults() Terms {
	if t.GroupID == 0 {
		t.GroupID = DefaultGroup
	}
	if t.Period == "" {
		t.Period = "none"
	}
	return t
}

// orNull is how a time that may be missing is stored.
func orNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return millis(*t)
}
