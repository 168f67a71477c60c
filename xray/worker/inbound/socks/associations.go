package socks

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"nodeagent/xray/state"
)

const (
	// maxAssociations of one address on one inbound: many may share it.
	maxAssociations = 4096
	// portRest is how long a port whose datagrams nobody reads stays its association's.
	// xray-core ends who reads two minutes after the last one.
	portRest = 3 * time.Minute
	// askedNow is how long after one was asked for its first datagram is to be expected.
	askedNow = 2 * time.Second
)

var errTooManyAssociations = errors.New("refuse association: there are as many as there may be from one address")

// Association is a client's right to send datagrams, as long as the connection lives by
// which it asked for that (RFC 1928, section 7).
type Association struct {
	account, password string
	client            netip.Addr
	port              uint16    // from which it said that its datagrams come; 0 for none
	control           io.Closer // that connection
	began             time.Time
	ports             int // that are its own
}

// Associations are those of all SOCKS inbounds. They outlive their inbound's handler: one
// that takes its place goes on with them.
type Associations struct {
	mu  sync.Mutex
	all map[udpSource]*udpClients
}

// NewAssociations makes an empty table.
func NewAssociations() *Associations {
	return &Associations{all: map[udpSource]*udpClients{}}
}

// udpSource is an address from which clients of an inbound come.
type udpSource struct {
	inbound string
	address netip.Addr
}

// udpClients are an address's, which nothing in a datagram tells apart but its port.
type udpClients struct {
	live  []*Association // in the order in which they were asked for
	ports map[uint16]*port
	swept time.Time
}

// port is where a client's datagrams come from.
type port struct {
	owner  *Association
	ended  bool      // the owner is
	reader io.Closer // who reads its datagrams; nil for nobody
	rested time.Time // since when
}

func (p *port) expired(now time.Time) bool { return p.reader == nil && now.Sub(p.rested) > portRest }

// begin returns what ends it.
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
	return func() {
		for _, reader := range a.over(key, one) {
			_ = reader.Close()
		}
	}, nil
}

// over ends an association. Its ports go to another one of the same account, which they
// may have been from the start; or else it returns who reads them.
func (a *Associations) over(key udpSource, one *Association) (readers []io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.all[key]
	c.live = slices.DeleteFunc(c.live, func(other *Association) bool { return other == one })
	if len(c.live) == 0 {
		delete(a.all, key)
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
		}
	}
	return readers
}

// latest is the one that was asked for last, of those that are meant; nil for none.
func (c *udpClients) latest(meant func(*Association) bool) *Association {
	for _, one := range slices.Backward(c.live) {
		if meant(one) {
			return one
		}
	}
	return nil
}

// give makes a port an association's.
func (c *udpClients) give(number uint16, to *Association, reader io.Closer) {
	if p := c.ports[number]; p != nil {
		p.owner.ports--
	}
	to.ports++
	c.ports[number] = &port{owner: to, reader: reader, rested: time.Now()}
}

// sweep forgets ports that rested for long.
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

// of returns the association to which a source's datagrams belong, of those whose account
// holds; nil for none. It notes who reads them.
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
	}
	return one
}

// ownerOf is whose port it is: who has it, or named it, or one who has none yet. Of several
// of these it is the first of those who asked just now, and else the last. Further ports
// are the last's who asked, but for those of somebody who was there before.
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

// rest notes that nobody reads a source's datagrams, which stay the association's for a
// while.
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

// endAll ends the inbound's associations that are meant, by the connections on which they
// were asked for.
func (a *Associations) endAll(inbound string, meant func(*Association) bool) {
	var controls []io.Closer
	a.mu.Lock()
	for key, c := range a.all {
		for _, one := range c.live {
			if key.inbound == inbound && meant(one) {
				controls = append(controls, one.control)
			}
		}
	}
	a.mu.Unlock()
	for _, control := range controls {
		_ = control.Close()
	}
}

// End ends all of an inbound that listens no more.
func (a *Associations) End(inbound string) {
	a.endAll(inbound, func(*Association) bool { return true })
}

// InboundChanged ends the associations of an inbound that listens elsewhere now: where to
// send datagrams their clients were told once. Or else it ends those whose account it has
// no more.
func (a *Associations) InboundChanged(before, now state.Inbound, holds func(*Association) bool) {
	was, err1 := before.Bindings()
	is, err2 := now.Bindings()
	moved := err1 != nil || err2 != nil || !slices.Equal(was, is) || before.Protocol != now.Protocol
	a.endAll(now.Tag, func(one *Association) bool { return moved || !holds(one) })
}
