package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestUntil(t *testing.T) {
	for name, c := range map[string]struct {
		at, most time.Duration
		steps    map[time.Duration]time.Duration // of the wall clock, by when
		ends     time.Duration                   // when the context does; 0 for never
		wakes    time.Duration                   // 0 for never
		took     time.Duration
		full     bool
	}{
		"the moment comes":               {at: time.Hour, most: 2 * time.Hour, took: time.Hour, full: true},
		"a moment that is over":          {at: -time.Hour, most: time.Hour, full: true},
		"the most is over":               {at: time.Hour, most: time.Minute, took: time.Minute, full: true},
		"the context ends":               {at: time.Hour, most: time.Hour, ends: time.Minute, took: time.Minute},
		"the context has ended":          {at: -time.Hour, most: time.Hour, ends: -1},
		"a wake":                         {at: time.Hour, most: time.Hour, wakes: time.Minute, took: time.Minute, full: true},
		"the clock is set ahead":         {at: time.Hour, most: time.Hour, steps: map[time.Duration]time.Duration{90500 * time.Millisecond: 2 * time.Hour}, took: 91 * time.Second, full: true},
		"the clock is set a bit ahead":   {at: time.Hour, most: time.Hour, steps: map[time.Duration]time.Duration{30500 * time.Millisecond: time.Minute}, took: 31 * time.Second, full: true},
		"the clock is set back":          {at: time.Hour, most: time.Hour, steps: map[time.Duration]time.Duration{30500 * time.Millisecond: -time.Hour}, took: 31 * time.Second, full: true},
		"the clock is slewed by a blink": {at: time.Minute, most: time.Hour, steps: map[time.Duration]time.Duration{30 * time.Second: 500 * time.Millisecond}, took: 59500 * time.Millisecond, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.ends < 0 {
					cancel()
				} else if c.ends > 0 {
					time.AfterFunc(c.ends, cancel)
				}
				wake := make(chan struct{}, 1)
				if c.wakes > 0 {
					time.AfterFunc(c.wakes, func() { wake <- struct{}{} })
				}
				began := time.Now()
				now := func() time.Time {
					shows := time.Now()
					for when, by := range c.steps {
						if time.Since(began) >= when {
							shows = shows.Add(by)
						}
					}
					return shows
				}
				if full := Until(ctx, now, began.Add(c.at), c.most, wake); full != c.full || time.Since(began) != c.took {
					t.Errorf("waited %s, %t; want %s, %t", time.Since(began), full, c.took, c.full)
				}
			})
		})
	}
}
