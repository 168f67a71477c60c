package worker

import (
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/xray/ipc"
)

// Presence is sent at once after a pause, and many changes in a row come in few messages, in
// their order and before the slots that are closed after them. An answer waits for nothing.
func TestPresenceIsSentTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		q := newMessageQueue()
		var sending sync.WaitGroup
		q.attach(ipc.NewFrameConn(near))
		sending.Go(q.send)
		var got []ipc.Message
		sending.Go(func() {
			for conn := ipc.NewFrameConn(far); ; {
				var m ipc.Message
				if conn.Read(&m) != nil {
					return
				}
				got = append(got, m)
			}
		})
		change := func(slot uint32, online bool) {
			q.push(ipc.Message{Presence: []ipc.Presence{{Slot: slot, Online: online}}})
		}
		time.Sleep(time.Hour)
		change(1, true)
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("%d messages of the first change", len(got))
		}
		const visits = 1000 // a millisecond each, one after the other
		for range visits {
			time.Sleep(time.Millisecond)
			change(2, true)
			change(2, false)
		}
		q.push(ipc.Message{Closed: []uint32{2}})
		change(3, true)
		q.answer(q.conn, ipc.Message{ID: 7})
		synctest.Wait()
		if got[len(got)-1].ID != 7 {
			t.Error("an answer waits for the pause")
		}
		if most := visits*int(time.Millisecond)/int(eventPause) + 5; len(got) > most {
			t.Errorf("%d messages, at most %d", len(got), most)
		}
		var order []uint32
		online := false
		for _, m := range got {
			for _, p := range m.Presence {
				if p.Slot == 2 && p.Online == online {
					t.Fatal("the changes of a client are not in their order")
				} else if p.Slot == 2 {
					online = p.Online
				}
				order = append(order, p.Slot)
			}
			for range m.Closed {
				order = append(order, 99)
			}
		}
		want := slices.Concat([]uint32{1}, slices.Repeat([]uint32{2}, 2*visits), []uint32{99, 3})
		if !slices.Equal(order, want) {
			t.Errorf("%d changes came, in another order or number than %d", len(order), len(want))
		}
		q.close()
		synctest.Wait()
		_ = near.Close()
		sending.Wait()
	})
}

// Messages that arise while there is no daemon wait for the next one, in their order. Answers to the
// daemon that is gone do not wait. Beyond a bound the oldest messages are dropped, and counted.
func TestMessagesWaitForADaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMessageQueue()
		var sending sync.WaitGroup
		sending.Go(q.send)
		nearGone, farGone := net.Pipe()
		gone := ipc.NewFrameConn(nearGone)
		q.attach(gone)
		_ = farGone.Close()
		change := func(slot uint32) { q.push(ipc.Message{Presence: []ipc.Presence{{Slot: slot, Online: true}}}) }
		change(0) // it can't be sent, and waits too
		q.answer(gone, ipc.Message{ID: 7})
		synctest.Wait()
		q.push(ipc.Message{Line: "a line"})
		const more = 5000
		for i := range maxWaiting + more {
			change(uint32(1 + i))
		}
		synctest.Wait()
		near, far := net.Pipe()
		q.attach(ipc.NewFrameConn(near))
		var slots []uint32
		sending.Go(func() {
			for conn := ipc.NewFrameConn(far); ; {
				var m ipc.Message
				if conn.Read(&m) != nil {
					return
				}
				if m.ID != 0 {
					t.Errorf("the answer to a daemon that is gone was sent: %+v", m)
				}
				for _, p := range m.Presence {
					slots = append(slots, p.Slot)
				}
			}
		})
		synctest.Wait()
		if n := len(slots); n > maxWaiting || n < maxWaiting-maxJoined || !slices.IsSorted(slots) || slots[n-1] != maxWaiting+more {
			t.Errorf("%d changes came, from %d to %d", n, slots[0], slots[n-1])
		}
		if dropped := q.takeDropped(); dropped+len(slots) != maxWaiting+more+2 {
			t.Errorf("%d were dropped and %d came, of %d", dropped, len(slots), maxWaiting+more+2)
		}
		q.close()
		synctest.Wait()
		_ = near.Close()
		sending.Wait()
	})
}
