package hysteria

import (
	"slices"
	"time"

	xhysteria "github.com/xtls/xray-core/proxy/hysteria"
)

const (
	// maxDatagram is the most that a datagram of UDP can carry, in bytes.
	maxDatagram = 65507
	// maxPending and maxPendingBytes bound the datagrams of one session of which fragments are
	// missing.
	maxPending      = 16
	maxPendingBytes = 2 * maxDatagram
	// pendingAge is how long a datagram waits for its last fragment.
	pendingAge = 10 * time.Second
)

// assembler puts the fragments of one session together. It keeps the slices that it gets. One
// goroutine may use it.
type assembler struct {
	pending []*pending // the oldest first
	size    int        // of all fragments of pending, in bytes
}

// pending is a datagram of which fragments are missing.
type pending struct {
	id      uint16
	address string
	parts   [][]byte
	missing int
	size    int
	begun   time.Time
}

// add takes a message. It returns the whole datagram where the message is one, or completes
// one; else nil.
func (a *assembler) add(m *xhysteria.UDPMessage, now time.Time) []byte {
	if m.FragCount <= 1 {
		return m.Data
	}
	if m.FragID >= m.FragCount {
		return nil
	}
	p := a.of(m, now)
	p.parts[m.FragID] = m.Data
	p.missing--
	p.size += len(m.Data)
	a.size += len(m.Data)
	if p.size > maxDatagram {
		a.drop(p)
		return nil
	}
	if p.missing == 0 {
		a.drop(p)
		return slices.Concat(p.parts...)
	}
	for len(a.pending) > maxPending || a.size > maxPendingBytes {
		a.drop(a.pending[0])
	}
	return nil
}

// of returns the datagram to which a fragment belongs. QUIC delivers no datagram twice, so a
// fragment that is already there is the beginning of another datagram with the same ID.
func (a *assembler) of(m *xhysteria.UDPMessage, now time.Time) *pending {
	for len(a.pending) > 0 && now.Sub(a.pending[0].begun) > pendingAge {
		a.drop(a.pending[0])
	}
	at := slices.IndexFunc(a.pending, func(p *pending) bool { return p.id == m.PacketID })
	if at >= 0 {
		p := a.pending[at]
		if len(p.parts) == int(m.FragCount) && p.address == m.Addr && p.parts[m.FragID] == nil {
			return p
		}
		a.drop(p)
	}
	p := &pending{id: m.PacketID, address: m.Addr, parts: make([][]byte, m.FragCount), missing: int(m.FragCount), begun: now}
	a.pending = append(a.pending, p)
	return p
}

func (a *assembler) drop(p *pending) {
	a.pending = slices.DeleteFunc(a.pending, func(other *pending) bool { return other == p })
	a.size -= p.size
}
