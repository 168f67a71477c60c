package grant

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/internal/counters"
)

func TestRead(t *testing.T) {
	const later = `"expiresAt":"2026-12-24T18:00:00+01:00"`
	for text, want := range map[string]string{ // the error, or the grant where it begins with "="
		``:                                   `=<nil>`,
		`null`:                               `=<nil>`,
		`{"id":"a","bytes":7,` + later + `}`: `=a 7 2026-12-24T17:00:00Z`,
		`{"id":"a","bytes":0,"more":1,` + later + `}`:                       `=a 0 2026-12-24T17:00:00Z`,
		`{"bytes":7,` + later + `}`:                                         `has no id`,
		`{"id":"","bytes":7,` + later + `}`:                                 `has no id`,
		`{"id":"a\n","bytes":7,` + later + `}`:                              `printable text`,
		`{"id":"` + strings.Repeat("a", 129) + `","bytes":7,` + later + `}`: `129 bytes`,
		`{"id":"a",` + later + `}`:                                          `has no bytes`,
		`{"id":"a","bytes":-1,` + later + `}`:                               `has -1 bytes`,
		`{"id":"a","bytes":1.5,` + later + `}`:                              `in "bytes"`,
		`{"id":1,"bytes":7,` + later + `}`:                                  `in "id"`,
		`{"id":"a","bytes":7}`:                                              `has no expiresAt`,
		`{"id":"a","bytes":7,"expiresAt":"tomorrow"}`:                       `"tomorrow"`,
		`{"id":"a","bytes":7,"expiresAt":1767225600}`:                       `in "expiresAt"`,
		`[]`:                      `JSON array`,
		`{"id":"a","bytes":7,`:    `unexpected end`,
		`{"id":"a","bytes":9e99}`: `in "bytes"`,
	} {
		g, err := Read(json.RawMessage(text))
		switch {
		case strings.HasPrefix(want, "="):
			have := "<nil>"
			if g != nil {
				have = strings.Join([]string{g.ID, json.Number(mustMarshal(t, g.Bytes)).String(), g.ExpiresAt.Format(time.RFC3339)}, " ")
			}
			if err != nil || have != want[1:] {
				t.Errorf("%s: %s (%v), want %s", text, have, err, want[1:])
			}
		case err == nil || !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want an error with %s", text, err, want)
		}
	}
}

func mustMarshal(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Whatever many goroutines with two mappings of the counters spend, as two workers do, no more passes
// than was granted and what one of them took at once. All that passed is counted.
func TestNoMoreThanGrantedPasses(t *testing.T) {
	const granted, most = 10_000_000, 64 << 10
	path := filepath.Join(t.TempDir(), "counters")
	owner, err := counters.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	if err := owner.Grow(1); err != nil {
		t.Fatal(err)
	}
	const start = 12_345 // of the slot's owner before
	g := Grant{ID: "a", Bytes: granted, ExpiresAt: time.Now().Add(time.Hour)}
	g.Until = g.End(start)
	var passed atomic.Int64
	var spending sync.WaitGroup
	for worker := range 2 {
		file, err := counters.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		slot, err := file.Slot(0)
		if err != nil {
			t.Fatal(err)
		}
		if worker == 0 {
			slot.Up.Add(start)
		}
		for i := range 20 {
			spending.Go(func() {
				for n := 1 + 997*i; g.Spend(slot, n); n = 1 + n*31%most {
					passed.Add(int64(n))
				}
			})
		}
	}
	spending.Wait()
	if n := passed.Load(); n < granted || n > granted+most {
		t.Errorf("%d bytes passed, %d were granted", n, granted)
	}
	used, _ := owner.Read(0)
	if int64(used)-start != passed.Load() {
		t.Errorf("%d bytes are counted, %d passed", int64(used)-start, passed.Load())
	}
	if !g.Over(used, time.Now()) {
		t.Error("the grant is not over")
	}
}

// The store takes a slot that falls for one that began again at zero. So a slot does not fall, not
// even for a moment, where bytes are turned away.
func TestSlotNeverFalls(t *testing.T) {
	var slot counters.Slot
	g := Grant{ID: "a", Bytes: 100, Until: 100, ExpiresAt: time.Now().Add(time.Hour)}
	if !g.Spend(&slot, 100) {
		t.Fatal("the granted bytes do not pass")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2_000_000 {
			if g.Spend(&slot, 7) {
				t.Error("bytes pass after the grant's end")
				return
			}
		}
	}()
	for {
		select {
		case <-done:
			return
		default:
			if n := slot.Up.Load(); n != 100 {
				t.Errorf("the slot has %d bytes while the others are turned away, want 100", n)
				<-done
				return
			}
		}
	}
}

func TestOver(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		bytes, start int64
		used         uint64
		expires      time.Time
		want         bool
	}{
		"some left":                {10, 5, 14, now.Add(1), false},
		"nothing left":             {10, 5, 15, now.Add(1), true},
		"expired":                  {10, 5, 5, now, true},
		"nothing granted":          {0, 5, 5, now.Add(1), true},
		"used before a reboot":     {10, -11, 0, now.Add(1), true},
		"half used before it":      {10, -5, 4, now.Add(1), false},
		"more than can be counted": {1<<63 - 1, 5, 1 << 40, now.Add(1), false},
	} {
		g := Grant{Bytes: c.bytes, ExpiresAt: c.expires}
		g.Until = g.End(c.start)
		if over := g.Over(c.used, now); over != c.want {
			t.Errorf("%s: over is %t", name, over)
		}
	}
}
