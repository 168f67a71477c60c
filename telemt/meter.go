package telemt

import (
	"maps"
	"time"
)

// sameEpoch is how far the start of an epoch may seem to move between two
// readings: telemt rounds its uptime, and a scrape takes time.
const sameEpoch = 2 * time.Second

// meter turns the readings of one process's counters, which start again from
// zero now and then, into what was gained since the last reading. It knows a
// counter by (epoch, user): the epoch is when telemt began to count, and a user's
// series that went away or fell begins at zero again.
type meter struct {
	begun  time.Time // of the epoch; zero before the first reading
	uptime time.Duration
	last   map[string]octets
}

// read returns what each user moved since the last reading. A first reading
// counts whole: it is made of a process that began after the one before ended.
func (m *meter) read(s sample) map[string]octets {
	begun := s.at.Add(-s.uptime)
	if s.uptime < m.uptime || begun.Sub(m.begun).Abs() > sameEpoch {
		m.last = nil
	}
	m.begun, m.uptime = begun, s.uptime
	gained := map[string]octets{}
	for user, now := range s.users {
		before := m.last[user]
		if now.up < before.up || now.down < before.down {
			before = octets{}
		}
		if delta := (octets{now.up - before.up, now.down - before.down}); delta != (octets{}) {
			gained[user] = delta
		}
	}
	m.last = maps.Clone(s.users)
	return gained
}

// restart tells that telemt counts from zero from now on: a new generation.
func (m *meter) restart() { *m = meter{} }
