package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

func countClosed(all []<-chan struct{}) (n int) {
	for _, c := range all {
		if closed(c) {
			n++
		}
	}
	return n
}

// A few nodes are woken at once. Many are woken in steps, and all of them within a second or so,
// also where each is named by itself, as other instances do.
func TestManyNodesAreWokenInSteps(t *testing.T) {
	for name, change := range map[string]func(h *Hub, ids []int64){
		"together": func(h *Hub, ids []int64) { h.Changed(ids...) },
		"one by one": func(h *Hub, ids []int64) {
			for _, id := range ids {
				h.Changed(id)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := New()
				var ids []int64
				var waiting []<-chan struct{}
				for id := range int64(10_000) {
					ids, waiting = append(ids, id), append(waiting, h.Next(id))
				}
				change(h, ids[:atOnce])
				if n := countClosed(waiting); n != atOnce {
					t.Errorf("of a few nodes %d are woken at once, want all %d", n, atOnce)
				}
				time.Sleep(time.Second)
				change(h, ids[atOnce:])
				last := countClosed(waiting)
				if last > 2*atOnce {
					t.Errorf("%d nodes are woken at once", last)
				}
				for range 2 * ticks {
					time.Sleep(tick)
					synctest.Wait()
					n := countClosed(waiting)
					if n-last > 2*len(ids)/ticks {
						t.Errorf("%d nodes are woken in one step", n-last)
					}
					last = n
				}
				if last != len(ids) {
					t.Errorf("%d of %d nodes are woken", last, len(ids))
				}
			})
		})
	}
}

// A burst of edits wakes a node at once, and once more when the burst is over.
func TestBurstIsOneMoreWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		wakes := 0
		next := h.Next(1)
		for range 20 {
			h.Changed(1)
			time.Sleep(calm / 50)
			synctest.Wait()
			if closed(next) {
				wakes++
				next = h.Next(1)
			}
		}
		time.Sleep(2 * calm)
		synctest.Wait()
		if closed(next) {
			wakes++
		}
		if wakes != 2 {
			t.Errorf("%d wakes, want 2", wakes)
		}
		next = h.Next(1)
		h.Changed(1)
		if !closed(next) {
			t.Error("after a calm moment, a change does not wake at once")
		}
	})
}

// A heartbeat that comes while its node is to be woken has read what changed: it is not woken for
// that, and the one before it is.
func TestWhoAsksMeanwhileIsNotWokenForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New()
		first := h.Next(1)
		h.Changed(1)
		if !closed(first) {
			t.Fatal("not woken")
		}
		second := h.Next(1)
		h.Changed(1)
		third := h.Next(1)
		time.Sleep(2 * calm)
		synctest.Wait()
		if !closed(second) || closed(third) {
			t.Errorf("second %v, third %v: want the second alone to be woken", closed(second), closed(third))
		}
		h.Changed(1)
		synctest.Wait()
		if !closed(third) {
			t.Error("a later change does not wake")
		}
	})
}
