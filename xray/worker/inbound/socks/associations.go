package socks

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/worker/relay"
)

const (
	// maxAssociations is how many associations one source address may have on one inbound.
	// Many clients may share an address.
	maxAssociations = 4096
	// portRest is how long a port stays with its association while no goroutine reads its
	// datagrams. xray-core ends a reader two minutes after the last datagram.
	portRest = 3 * time.Minute
	// askedNow is how soon after its request a client is expected to send its first datagram.
	askedNow = 2 * time.Second
)

var errTooManyAssociations = fmt.Errorf("refuse association: the source address has %d associations, which is the limit", maxAssociations)

// Association is a client's right to send datagrams. It lasts as long as the TCP connection
// on which the client asked for it (RFC 1928, section 7).
type Association struct {
	account, password string
	client            netip.Addr
	port              uint16         // the source port that the client named in its request; 0 for none
	at                uint16         // the inbound's port
	control           io.Closer      // the TCP connection on which the client asked
	peer              netip.AddrPort // where control comes from
	began             time.Time
	ports             int // how many source ports belong to the association
	// cut says that it was ended here. Its ports stay with this worker for a while, which refuses them: the
	// next one would take them for another client's at that address.
	cut bool
}

// Associations has the associations of all SOCKS inbounds. It decides to which association,
// and so to which account, the datagrams of a source port belong. It outlives the handlers:
// when an inbound's handler is replaced, the new handler uses the same associations.
//
// Two kinds of goroutines use it. The goroutine of a TCP connection calls begin, and calls the
// function that begin returned when the connection ends. The goroutine that serves the
// datagrams of one source port calls of, and rest when it ends. End and InboundChanged are
// called by the worker's operations. Any goroutine calls control.
//
// Locks: mu guards everything in the table, also the fields began, ports and cut of each
// Association and all fields of udpClients and port. The methods of udpClients are called
// while mu is held. No other lock is taken while it is held, but for occupancy.Table.look, in
// relay.Hold: accounts are looked up before, connections and readers are closed after mu has been released.
//
// Invariants: an entry of all has at least one live association. Association.ports is the
// number of ports in the same udpClients whose owner it is. A port has one owner. When the
// owner ends, the port goes to another association of the same account, or it is marked as
// ended.
type Associations struct {
	open atomic.Int64

	mu  sync.Mutex
	all map[udpSource]*udpClients
}

// Open returns how many associations there are.
func (a *Associations) Open() int64 { return a.open.Load() }

// NewAssociations makes an empty table.
func NewAssociations() *Associations {
	return &Associations{all: map[udpSource]*udpClients{}}
}

// udpSource is one source address on one inbound.
type udpSource struct {
	inbound string
	address netip.Addr
}

// udpClients are the clients behind one source address on one inbound. A datagram carries no
// account, so only its source port can tell them apart.
type udpClients struct {
	live  []*Association // in the order of the requests
	ports map[uint16]*port
	swept time.Time
}

// port is a source port from which datagrams have come.
type port struct {
	owner  *Association
	ended  bool      // the owner has ended
	reader io.Closer // the connection from which the datagrams are read; nil if none reads
	rested time.Time // since when reader is nil
}

func (p *port) expired(now time.Time) bool { return p.reader == nil && now.Sub(p.rested) > portRest }

// begin registers the association one. The caller calls end when the TCP connection ends.
// The error is errTooManyAssociations.
func (a *Associations) begin(inbound string, one *Association) (end func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := udpSource{inbound, one.client}
	c := a.all[key]
	if c == nil {
		c = &udpClients{ports: map[uint16]*port{}}
		a.all[key] = c
	}
	if len(c.live) >= maxAssociations {
		return nil, errTooManyAssociations
	}
	one.began = time.Now()
	c.live = append(c.live, one)
	a.open.Add(1)
	c.tell(one.at, one.client)
	if one.port != 0 {
		relay.Hold(one.at, netip.AddrPortFrom(one.client, one.port), false)
	}
	return func() {
		for _, reader := range a.over(key, one) {
			_ = reader.Close()
		}
	}, nil
}

// over unregisters the association one. Its ports go to the latest other association of the
// same account, to which they may have belonged from the start. If there is none, over
// returns the readers of the ports, and the caller closes them.
func (a *Associations) over(key udpSource, one *Association) (readers []io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.all[key]
	c.live = slices.DeleteFunc(c.live, func(other *Association) bool { return other == one })
	if len(c.live) == 0 {
		delete(a.all, key)
	}
	a.open.Add(-1)
	if one.port != 0 && c.latest(func(other *Association) bool { return other.at == one.at && other.port == one.port }) == nil {
		relay.Leave(one.at, netip.AddrPortFrom(one.client, one.port))
	}
	heir := c.latest(func(other *Association) bool { return other.account == one.account && other.password == one.password })
	for number, p := range c.ports {
		switch {
		case p.owner != one || p.ended:
		case heir != nil:
			c.give(number, heir, p.reader)
		default:
			if p.reader != nil {
				readers = append(readers, p.reader)
			}
			p.ended, p.reader, p.rested = true, nil, time.Now()
			if !one.cut {
				relay.Leave(one.at, netip.AddrPortFrom(one.client, number))
			}
		}
	}
	c.tell(one.at, one.client)
	return readers
}

// tell notes for other workers whether there are associations at a port of the node, and whether one of them
// has no source port yet: ownerOf gives it the next one.
func (c *udpClients) tell(at uint16, client netip.Addr) {
	live, waits := false, false
	for _, one := range c.live {
		if one.at == at {
			live, waits = true, waits || one.ports == 0
		}
	}
	if live {
		relay.Hold(at, netip.AddrPortFrom(client, 0), waits)
	} else {
		relay.Leave(at, netip.AddrPortFrom(client, 0))
	}
}

// latest returns the newest association for which meant returns true, or nil.
func (c *udpClients) latest(meant func(*Association) bool) *Association {
	for _, one := range slices.Backward(c.live) {
		if meant(one) {
			return one
		}
	}
	return nil
}

// give makes to the owner of a port.
func (c *udpClients) give(number uint16, to *Association, reader io.Closer) {
	if p := c.ports[number]; p != nil {
		p.owner.ports--
	}
	to.ports++
	c.ports[number] = &port{owner: to, reader: reader, rested: time.Now()}
}

// sweep forgets the expired ports. It does nothing if it last ran less than portRest ago.
func (c *udpClients) sweep(now time.Time) {
	if now.Sub(c.swept) < portRest {
		return
	}
	c.swept = now
	for number, p := range c.ports {
		if p.expired(now) {
			p.owner.ports--
			delete(c.ports, number)
		}
	}
}

// of returns the association to which the datagrams from source belong, or nil. It considers
// only associations for which holds returns true. It records reader as the port's reader.
func (a *Associations) of(inbound string, source netip.AddrPort, holds func(*Association) bool, reader io.Closer) *Association {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.all[udpSource{inbound, source.Addr()}]
	if c == nil {
		return nil
	}
	now := time.Now()
	c.sweep(now)
	one := c.ownerOf(source.Port(), holds, now)
	if one != nil {
		c.give(source.Port(), one, reader)
		c.tell(one.at, one.client)
	}
	return one
}

// ownerOf returns the association to which the port number belongs. It is the first of these
// that exists, among the associations for which holds returns true:
//
//  1. the owner of the port, while its datagrams are read;
//  2. the newest association that named the port in its request;
//  3. the owner of the port;
//  4. the oldest association without a port that was asked for within askedNow;
//  5. the newest association without a port;
//  6. the newest association; if the port has had an owner, only one of the same account.
func (c *udpClients) ownerOf(number uint16, holds func(*Association) bool, now time.Time) *Association {
	had := c.ports[number]
	if had != nil && had.expired(now) {
		had = nil
	}
	if had != nil && !had.ended && had.reader != nil && holds(had.owner) {
		return had.owner
	}
	if one := c.latest(func(one *Association) bool { return one.port == number && holds(one) }); one != nil {
		return one
	}
	if had != nil && !had.ended && holds(had.owner) {
		return had.owner
	}
	without := func(one *Association) bool { return one.ports == 0 && holds(one) }
	if i := slices.IndexFunc(c.live, func(one *Association) bool { return without(one) && now.Sub(one.began) < askedNow }); i >= 0 {
		return c.live[i]
	}
	if one := c.latest(without); one != nil {
		return one
	}
	return c.latest(func(one *Association) bool {
		return holds(one) && (had == nil || had.owner.account == one.account)
	})
}

// control returns where the TCP connection comes from on which the client asked for the datagrams that
// reader reads from source. It is another one once the association has ended and the port has gone to
// another association. It is zero if reader reads them no longer.
func (a *Associations) control(inbound string, source netip.AddrPort, reader io.Closer) netip.AddrPort {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.all[udpSource{inbound, source.Addr()}]; c != nil {
		if p := c.ports[source.Port()]; p != nil && p.reader == reader {
			return p.owner.peer
		}
	}
	return netip.AddrPort{}
}

// rest records that reader no longer reads the datagrams from source. The port stays with its
// association for portRest.
func (a *Associations) rest(inbound string, source netip.AddrPort, reader io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.all[udpSource{inbound, source.Addr()}]
	if c == nil {
		return
	}
	if p := c.ports[source.Port()]; p != nil && p.reader == reader {
		p.reader, p.rested = nil, time.Now()
	}
}

// endAll ends the inbound's associations for which meant returns true. It closes the TCP
// connections on which the clients asked for them.
func (a *Associations) endAll(inbound string, meant func(*Association) bool) {
	var controls []io.Closer
	a.mu.Lock()
	for key, c := range a.all {
		for _, one := range c.live {
			if key.inbound == inbound && meant(one) {
				one.cut = true
				controls = append(controls, one.control)
			}
		}
	}
	a.mu.Unlock()
	for _, control := range controls {
		_ = control.Close()
	}
}

// End ends all associations of an inbound that no longer listens.
func (a *Associations) End(inbound string) {
	a.endAll(inbound, func(*Association) bool { return true })
}

// EndUnknown ends those associations of an inbound whose account it does not know any more.
// It calls knows without a lock.
func (a *Associations) EndUnknown(inbound string, knows func(inbound, account string) bool) {
	unknown := map[string]bool{}
	a.mu.Lock()
	for key, c := range a.all {
		for _, one := range c.live {
			if key.inbound == inbound {
				unknown[one.account] = false
			}
		}
	}
	a.mu.Unlock()
	for account := range unknown {
		unknown[account] = !knows(inbound, account)
	}
	a.endAll(inbound, func(one *Association) bool { return unknown[one.account] })
}

// InboundChanged ends all associations of an inbound that now listens on other addresses,
// because their clients would send datagrams to the old ones. Otherwise it ends those for
// which holds returns false: the inbound no longer has their account.
func (a *Associations) InboundChanged(before, now state.Inbound, holds func(*Association) bool) {
	was, err1 := before.Bindings()
	is, err2 := now.Bindings()
	moved := err1 != nil || err2 != nil || !slices.Equal(was, is) || before.Protocol != now.Protocol
	a.endAll(now.Tag, func(one *Association) bool { return moved || !holds(one) })
}
