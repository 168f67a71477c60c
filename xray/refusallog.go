package xray

import (
	"maps"
	"time"
)

// tellRefusals is how often the log tells of connections that were refused.
const tellRefusals = time.Minute

// refusalLog decides when the log tells how many connections were refused.
type refusalLog struct {
	pid    int              // of the worker that counts
	told   map[string]int64 // its counts that were told
	toldAt time.Time
}

// due returns the connections that were refused since the last time, by the tag of the inbound; nil
// where it is too early to tell, or there are none. counts are those of the worker pid.
func (l *refusalLog) due(pid int, now time.Time, counts map[string]int64) map[string]int64 {
	if pid != l.pid {
		l.pid, l.told = pid, nil
	}
	if now.Sub(l.toldAt) < tellRefusals || maps.Equal(l.told, counts) {
		return nil
	}
	since := map[string]int64{}
	for tag, count := range counts {
		if more := count - l.told[tag]; more > 0 {
			since[tag] = more
		}
	}
	l.told, l.toldAt = counts, now
	return since
}
