package telemt

import (
	"maps"
	"time"

	"nodeagent/telemt/api"
)

// roundedUptime is how much telemt's uptime may be too short, because telemt rounds it.
const roundedUptime = 100 * time.Millisecond

// meter turns readings of one process's counters into the bytes moved since the last
// reading. telemt's counters start again from zero when a generation starts, and for a
// user who had no session for a day. So a counter belongs to an epoch, which begins when
// telemt's generation starts, and to a user. It begins at zero if the epoch is new, if the
// user was missing in the last reading, or if its value has fallen.
type meter struct {
	at     time.Time // of the last reading; zero before the first
	uptime time.Duration
	last   map[string]api.Octets
	anew   bool // the last reading was the first one of an epoch
}

// gained returns what each user has moved since the last reading. The first reading counts
// in full: it is that of a process that started after the previous one had ended.
func (m *meter) gained(s api.Sample) map[string]api.Octets {
	// The epoch is new if its uptime has fallen, or if it began after the last reading.
	// The time of a reading is that of the request. A slow answer therefore makes the
	// epoch look older than it is, and never younger.
	begun := s.At.Add(-s.Uptime)
	if m.anew = s.Uptime < m.uptime || begun.After(m.at.Add(roundedUptime)); m.anew {
		m.last = nil
	}
	m.at, m.uptime = s.At, s.Uptime
	gained := map[string]api.Octets{}
	for user, now := range s.Users {
		before := m.last[user]
		if now.Up < before.Up || now.Down < before.Down {
			before = api.Octets{}
		}
		if delta := (api.Octets{Up: now.Up - before.Up, Down: now.Down - before.Down}); delta != (api.Octets{}) {
			gained[user] = delta
		}
	}
	m.last = maps.Clone(s.Users)
	return gained
}

// reset makes the next reading count in full: telemt's counters start again from zero.
func (m *meter) reset() { *m = meter{} }
