package xray

import (
	"testing"
	"time"
)

// A new build is given up for a worker that crashes by itself soon after the upgrade, and for no other.
func TestWhichCrashBlamesTheBuild(t *testing.T) {
	for _, c := range []struct {
		name     string
		upgraded time.Duration // ago; zero for never
		changing bool
		hang     bool
		want     bool
	}{
		{name: "soon after the upgrade", upgraded: time.Second, want: true},
		{name: "long after it", upgraded: 2 * healthyUptime},
		{name: "without one"},
		{name: "over a change", upgraded: time.Second, changing: true},
		{name: "ended because it hung", upgraded: time.Second, hang: true},
	} {
		e, dead := &Engine{}, &workerClient{changing: c.changing}
		if c.upgraded > 0 {
			e.upgradedAt = time.Now().Add(-c.upgraded)
		}
		if c.hang {
			dead.hang.Store(errHangs)
		}
		if e.blamesBuild(dead) != c.want {
			t.Errorf("%s: want %v", c.name, c.want)
		}
	}
}
