package xray

import (
	"net/netip"
	"sync"
	"time"

	"nodeagent/xray/ipc"
)

// presenceMerger merges what the workers tell of clients: a client is online while any
// worker has a stream of it, and a removed client's slot is closed once no
// worker counts to it any more.
type presenceMerger struct {
	tellPresence func(ipc.Presence)
	tellClosed   func([]uint32)

	mu      sync.Mutex
	online  map[visitor]int                        // workers that have the client's streams
	of      map[*workerClient]map[visitor]struct{} // the same, by worker
	retired map[uint32]map[*workerClient]struct{}  // who may still count to a removed slot
}

type visitor struct {
	slot uint32
	ip   netip.Addr
}

func newPresenceMerger(presence func(ipc.Presence), closed func([]uint32)) *presenceMerger {
	return &presenceMerger{
		tellPresence: presence, tellClosed: closed,
		online:  map[visitor]int{},
		of:      map[*workerClient]map[visitor]struct{}{},
		retired: map[uint32]map[*workerClient]struct{}{},
	}
}

// heard takes a worker's message that answers nothing.
func (c *presenceMerger) heard(w *workerClient, m ipc.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Event != nil {
		c.move(w, *m.Event)
	}
	c.close(w, m.Closed)
}

func (c *presenceMerger) move(w *workerClient, p ipc.Presence) {
	who := visitor{p.Slot, p.IP}
	if c.of[w] == nil {
		c.of[w] = map[visitor]struct{}{}
	}
	if _, here := c.of[w][who]; here == p.Online {
		return
	}
	if p.Online {
		c.of[w][who] = struct{}{}
		if c.online[who]++; c.online[who] == 1 {
			c.tellPresence(p)
		}
		return
	}
	delete(c.of[w], who)
	if c.online[who]--; c.online[who] == 0 {
		delete(c.online, who)
		c.tellPresence(p)
	}
}

func (c *presenceMerger) close(w *workerClient, slots []uint32) {
	var closed []uint32
	for _, slot := range slots {
		who, is := c.retired[slot]
		if !is {
			continue
		}
		if delete(who, w); len(who) == 0 {
			delete(c.retired, slot)
			closed = append(closed, slot)
		}
	}
	if len(closed) > 0 {
		c.tellClosed(closed)
	}
}

// leaving announces that the slots are about to be removed from the workers.
func (c *presenceMerger) leaving(slots []uint32, from ...*workerClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range slots {
		if c.retired[slot] == nil {
			c.retired[slot] = map[*workerClient]struct{}{}
		}
		for _, w := range from {
			c.retired[slot][w] = struct{}{}
		}
	}
}

// staying takes leaving back.
func (c *presenceMerger) staying(slots []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range slots {
		delete(c.retired, slot)
	}
}

// workerEnded tells offline for everybody who was online there alone, and
// closes what only that worker could have counted to.
func (c *presenceMerger) workerEnded(w *workerClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().UTC()
	for who := range c.of[w] {
		c.move(w, ipc.Presence{Slot: who.slot, IP: who.ip, At: now})
	}
	delete(c.of, w)
	var slots []uint32
	for slot := range c.retired {
		slots = append(slots, slot)
	}
	c.close(w, slots)
}
