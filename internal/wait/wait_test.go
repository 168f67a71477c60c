package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestForEndsWithTheTimeOrWithTheContext(t *testing.T) {
	for name, c := range map[string]struct {
		ends time.Duration // when the context does
		took time.Duration
		full bool
	}{
		"the context outlives the wait": {time.Hour, time.Minute, true},
		"the context ends before":       {time.Second, time.Second, false},
		"the context has ended already": {0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.ends)
				defer cancel()
				started := time.Now()
				if full := For(ctx, time.Minute); full != c.full || time.Since(started) != c.took {
					t.Errorf("waited %s, %t; want %s, %t", time.Since(started), full, c.took, c.full)
				}
			})
		})
	}
}
