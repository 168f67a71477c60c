package xray

import (
	"net/netip"
	"sync"
	"time"

	"nodeagent/xray/ipc"
)

// presenceMerger merges the presence and the closed slots of all workers. A client is online
// while any worker has a stream of it. The slot of a removed client is closed once no worker
// adds bytes to it any more.
//
// mu guards all maps. tellPresence and tellClosed are called while mu is held, so that the
// messages keep their order. They must not call the presenceMerger.
type presenceMerger struct {
	tellPresence func(ipc.Presence)
	tellClosed   func([]uint32)

	mu      sync.Mutex
	online  map[visitor]int                        // how many workers have streams of the visitor
	of      map[*workerClient]map[visitor]struct{} // the visitors of each worker
	retired map[uint32]map[*workerClient]struct{}  // the workers that may still add bytes to a removed slot
}

// visitor is a client, by its slot, at one source address.
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

// heard handles presence and closed slots from a worker.
func (c *presenceMerger) heard(w *workerClient, m ipc.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range m.Presence {
		c.moveLocked(w, p)
	}
	c.closeLocked(w, m.Closed)
}

// moveLocked records that a visitor is online or offline on w. It calls tellPresence if the
// visitor is now online on its first worker, or offline on its last one.
func (c *presenceMerger) moveLocked(w *workerClient, p ipc.Presence) {
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

// closeLocked records that w adds no more bytes to the slots. It calls tellClosed for the
// slots to which no other worker adds bytes.
func (c *presenceMerger) closeLocked(w *workerClient, slots []uint32) {
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

// adopt records who is online on a worker of an earlier daemon, and which of its slots are about to
// be closed. It tells nobody: the sessions may be known already.
func (c *presenceMerger) adopt(w *workerClient, running *ipc.Running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[w] = map[visitor]struct{}{}
	for _, p := range running.Online {
		who := visitor{p.Slot, p.IP}
		c.of[w][who] = struct{}{}
		c.online[who]++
	}
	for _, slot := range running.Closing {
		if c.retired[slot] == nil {
			c.retired[slot] = map[*workerClient]struct{}{}
		}
		c.retired[slot][w] = struct{}{}
	}
}

// knows tells whether a worker was adopted.
func (c *presenceMerger) knows(w *workerClient) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.of[w]
	return known
}

// leaving records that the slots are about to be removed from the workers from.
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

// staying undoes leaving, after the workers did not remove the slots.
func (c *presenceMerger) staying(slots []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range slots {
		delete(c.retired, slot)
	}
}

// workerEnded reports the visitors that were online only on w as offline. It closes the
// removed slots to which only w could add bytes.
func (c *presenceMerger) workerEnded(w *workerClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().UTC()
	for who := range c.of[w] {
		c.moveLocked(w, ipc.Presence{Slot: who.slot, IP: who.ip, At: now})
	}
	delete(c.of, w)
	var slots []uint32
	for slot := range c.retired {
		slots = append(slots, slot)
	}
	c.closeLocked(w, slots)
}
