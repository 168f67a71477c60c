package telemt

import (
	"maps"
	"time"

	"nodeagent/telemt/api"
)

// roundedUptime is how much shorter telemt may tell its uptime than it is.
const roundedUptime = 100 * time.Millisecond

// meter turns the readings of one process's counters, which start again from
// zero now and then, into what was gained since the last reading. It knows a
// counter by (epoch, user): the epoch is when telemt began to count, and a user's
// series that went away or fell begins at zero again.
type meter struct {
	at     time.Time // of the last reading; zero before the first
	uptime time.Duration
	last   map[string]api.Octets
}

// gained returns what each user moved since the last reading. A first reading
// counts whole: it is made of a process that began after the one before ended.
func (m *meter) gained(s api.Sample) map[string]api.Octets {
	// An epoch that began after the last reading is another one, also where it has
	// lasted longer by now. The reading's time is that of the question: an answer
	// that took long makes the epoch seem older, never younger.
	begun := s.At.Add(-s.Uptime)
	if s.Uptime < m.uptime || begun.After(m.at.Add(roundedUptime)) {
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

// reset tells that telemt counts from zero from now on: a new generation.
func (m *meter) reset() { *m = meter{} }
