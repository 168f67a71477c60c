package telemt

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nodeagent/telemt/api"
)

// fakeTelemt counts as telemt does, and forgets its counters when telemt does.
type fakeTelemt struct {
	now, began time.Time
	users      map[string]api.Octets
}

func (f *fakeTelemt) sample() api.Sample {
	uptime := f.now.Sub(f.began).Round(100 * time.Millisecond)
	return api.Sample{At: f.now, Uptime: uptime, Users: maps.Clone(f.users)}
}

// Whatever telemt forgets between readings, each byte that was read is counted once.
func TestMeterNeitherLosesNorDoubles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		telemt := &fakeTelemt{now: time.Now(), began: time.Now(), users: map[string]api.Octets{}}
		var m meter
		counted, want := map[string]api.Octets{}, map[string]api.Octets{}
		unread := map[string]api.Octets{}
		add := func(to map[string]api.Octets, user string, up, down uint64) {
			o := to[user]
			to[user] = api.Octets{Up: o.Up + up, Down: o.Down + down}
		}
		read := func() {
			for user, gained := range m.gained(telemt.sample()) {
				add(counted, user, gained.Up, gained.Down)
			}
			for user, o := range unread {
				add(want, user, o.Up, o.Down)
			}
			clear(unread)
		}
		user := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"traffic": func(t *rapid.T) {
				name, up, down := user.Draw(t, "user"), rapid.Uint64Range(0, 1<<30).Draw(t, "up"), rapid.Uint64Range(0, 1<<30).Draw(t, "down")
				add(telemt.users, name, up, down)
				add(unread, name, up, down)
			},
			"time": func(t *rapid.T) {
				telemt.now = telemt.now.Add(time.Duration(rapid.IntRange(1, 600_000).Draw(t, "ms")) * time.Millisecond)
			},
			"read": func(*rapid.T) { read() },
			"a generation that the keeper asked for": func(*rapid.T) { // it reads before and resets after
				read()
				telemt.began, telemt.users = telemt.now, map[string]api.Octets{}
				m.reset()
			},
			"an unexpected generation": func(*rapid.T) { // what was not read is lost
				telemt.now = telemt.now.Add(2 * roundedUptime)
				telemt.began, telemt.users = telemt.now, map[string]api.Octets{}
				clear(unread)
			},
			"a slow answer": func(t *rapid.T) { // the sample is older than its answer
				s := telemt.sample()
				telemt.now = telemt.now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
				for user, gained := range m.gained(s) {
					add(counted, user, gained.Up, gained.Down)
				}
				for user, o := range unread {
					add(want, user, o.Up, o.Down)
				}
				clear(unread)
			},
			"a day without a session": func(t *rapid.T) {
				read()
				telemt.now = telemt.now.Add(25 * time.Hour)
				delete(telemt.users, user.Draw(t, "user"))
				read() // readings are so frequent that one finds the user missing
			},
		})
		read()
		for name, w := range want {
			if w != (api.Octets{}) && counted[name] != w {
				t.Fatalf("user %s: counted %v, want %v", name, counted[name], w)
			}
		}
	})
}
