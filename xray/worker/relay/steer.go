package relay

import (
	"net"
	"net/netip"
	"slices"
	"time"
)

// ListenSources returns a socket that reads from socket, but for datagrams of sources that other workers
// serve, and from the other workers. This worker serves a source for life after each datagram that
// it sends there; after the first one, for half a minute at most. bounded says that the listener bounds its
// new sources: these have room before others. It returns socket itself where this process has no relay.
// Closing it closes socket.
func ListenSources(socket net.PacketConn, life time.Duration, bounded bool) net.PacketConn {
	if r := own.Load(); r != nil && r.sources != nil {
		return r.listenSources(socket, life, bounded)
	}
	return socket
}

func (r *Relay) listenSources(socket net.PacketConn, life time.Duration, bounded bool) net.PacketConn {
	p := r.port(socket, life)
	if p == nil {
		return socket
	}
	p.bounded = bounded
	return &sourceSocket{plainSocket{PacketConn: socket, Port: p}}
}

// sourceSocket is a Port that is shared by the sources of datagrams.
type sourceSocket struct{ plainSocket }

func (s *sourceSocket) WriteTo(data []byte, to net.Addr) (int, error) {
	if client, is := to.(*net.UDPAddr); is {
		sources, life := s.relay.sources, uint32(s.life/time.Second)
		now := sources.now()
		sources.hold(sources.hash(s.at.Port(), sourceOf(client)), holding{until: now + life, first: now + min(life, tryLife), alone: true, firm: s.bounded})
	}
	return s.PacketConn.WriteTo(data, to)
}

func sourceOf(client *net.UDPAddr) netip.AddrPort {
	at := client.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// keepSource reports whether a datagram from the socket is for this worker, as keep does. One that no
// worker serves is for the worker that takes new connections.
func (p *Port) keepSource(data []byte, from net.Addr) bool {
	r := p.relay
	draining := r.draining.Load()
	if !draining && !r.table.Shared() {
		return true
	}
	client, known := from.(*net.UDPAddr)
	if !known {
		return true
	}
	self := r.table.Lane()
	serving, serves := self, true
	if draining {
		if serving, serves = r.table.Serving(); !serves {
			serving = -1
		}
	}
	lane, is := r.sources.laneOf(p.at.Port(), sourceOf(client), serving)
	switch {
	case is && lane == self, !is && !draining:
		return true
	case !is && !serves: // the port is closed to new connections
		r.Dropped.Add(1)
		return false
	case !is && !r.sources.shares(serving):
		go r.endSources()
		return false
	case !is:
		lane = serving
	}
	if socket, is := p.socket.(Rester); is {
		if rest := socket.TakeRest(data); rest != nil {
			data = slices.Concat(data, rest)
			if !r.pass(lane, datagram{at: p.at, from: client, data: data}) {
				r.Dropped.Add(1)
			}
			return false
		}
	}
	return !r.pass(lane, datagram{at: p.at, from: client, data: data})
}

// endSources closes the sockets that are shared by sources. Its caller has found that the worker that
// serves takes no datagrams of them: those that the kernel gives to this worker would be lost.
func (r *Relay) endSources() {
	r.sources.withdraw()
	r.mu.Lock()
	var sockets []net.PacketConn
	for p := range r.ports {
		if p.life > 0 {
			sockets = append(sockets, p.socket)
			delete(r.ports, p)
		}
	}
	r.mu.Unlock()
	for _, socket := range sockets {
		_ = socket.Close()
	}
}

// KeepsSources reports whether the sources of this worker stay with it while it drains: the worker that
// serves passes their datagrams on, or none serves. Where it returns false, no worker passes any on from
// now on, and the caller closes the sockets.
func (r *Relay) KeepsSources() bool {
	if r == nil || r.sources == nil {
		return false
	}
	if lane, serves := r.table.Serving(); serves && !r.sources.shares(lane) {
		r.sources.withdraw()
		return false
	}
	return true
}

// Hold notes that this worker serves the datagrams of a client that come to a port of the node, until
// Leave is called: those of the client's port, or of its whole address where that port is zero. waits says
// that an association of the client waits for its first datagram. Another call changes that.
func Hold(port uint16, client netip.AddrPort, waits bool) {
	if r := own.Load(); r != nil && r.sources != nil {
		until := uint32(forever)
		if waits {
			until = waiting
		}
		r.sources.hold(r.sources.hash(port, client), holding{until: until, firm: true})
	}
}

// Leave takes back the note of Hold, and the socket's of the client's port.
func Leave(port uint16, client netip.AddrPort) {
	if r := own.Load(); r != nil && r.sources != nil {
		r.sources.leave(r.sources.hash(port, client))
	}
}
