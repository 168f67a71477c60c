package traffic

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"nodeagent/xray/worker/life"
)

const (
	// defaultIPv6Prefix is what one host has at least: it takes other addresses in it every
	// day (RFC 8981).
	defaultIPv6Prefix = 64
	// stillThere is how long an answer holds: a second device that tries again and again does
	// not make the worker ask the first one all the time.
	stillThere = 5 * time.Second
	// heardLately is how long bytes of a client show that it is there. It is as long as the question
	// over TCP waits for an answer, so that no byte counts that came before a long question.
	heardLately = 4 * time.Second
	// datagramsRest is how long datagrams of Shadowsocks may stay away from an address that has nothing
	// else, before it gives room: there is no connection that could be asked. A phone that has moved is
	// let in after less than a minute so.
	datagramsRest = 30 * time.Second
	// askedAtOnce bounds how many addresses of one group are asked.
	askedAtOnce = 16
)

// place returns what limitIps counts for a client at source: an IPv4 address, or the network
// of an IPv6 address.
func (r *Registry) place(source netip.Addr) netip.Addr {
	if !source.Is6() {
		return source
	}
	network, err := source.WithZone("").Prefix(r.IPv6Prefix)
	if err != nil {
		return source
	}
	return network.Addr()
}

// makeRoom is called for a stream that a limit of its client keeps out. It asks the other
// addresses that the client has, and ends the streams of those that do not answer: a phone that
// has changed its network left them without a word. It returns true if the stream may be let
// in now. A second device that is there answers, within a round trip.
func (r *Registry) makeRoom(s *stream) bool {
	s.user.mu.Lock()
	g := s.user.group
	s.user.mu.Unlock()
	if g == nil {
		return true // its limits have gone meanwhile
	}
	g.mu.Lock()
	if g.refusalLocked(s) == nil || g.asking != nil {
		asking := g.asking
		g.mu.Unlock()
		if asking == nil {
			return true
		}
		select {
		case <-asking:
			return true
		case <-s.ctx.Done():
			return false
		}
	}
	if time.Since(g.answered) < stillThere {
		g.mu.Unlock()
		return false
	}
	asking := make(chan struct{})
	g.asking = asking
	have := places{}
	for place, streams := range g.addresses {
		if place != s.place && len(have) < askedAtOnce {
			have[place] = maps.Clone(streams)
		}
	}
	g.mu.Unlock()
	gone := r.silent(s, have)
	g.mu.Lock()
	ended := g.vacateLocked(gone)
	if g.asking = nil; len(ended) == 0 {
		g.answered = time.Now()
	}
	close(asking)
	g.mu.Unlock()
	r.end(peersOf(ended))
	for old := range ended {
		old.kill()
	}
	return len(ended) > 0
}

// places are streams by stream.place.
type places map[netip.Addr]map[*stream]struct{}

// silent returns those of the places whose peers do not answer over TCP, and from which nothing has
// come lately. For datagrams of SOCKS the TCP connection answers on which the client asked for them; other
// streams over UDP can't be asked. Of places with streams over QUIC or mKCP alone it returns none: these
// end by themselves 30 to 40 seconds after the peer's last packet. All are asked at once.
func (r *Registry) silent(s *stream, have places) places {
	gone := places{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for place, streams := range have {
		asking.Go(func() {
			since := heardLately
			switch r.ask(s.ctx, peersOf(streams)) {
			case life.Alive:
				return
			case life.Unknown:
				if !areDatagrams(streams) {
					return
				}
				since = datagramsRest
			case life.Silent:
			}
			if s.ctx.Err() != nil || wasHeard(streams, since) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			gone[place] = streams
		})
	}
	asking.Wait()
	return gone
}

// wasHeard reports whether bytes have come on one of the streams within a time.
func wasHeard(streams map[*stream]struct{}, within time.Duration) bool {
	since := time.Now().Add(-within).UnixNano()
	for s := range streams {
		if s.heard.Load() > since {
			return true
		}
	}
	return false
}

// areDatagrams reports whether no stream has a connection that ends with its peer.
func areDatagrams(streams map[*stream]struct{}) bool {
	for s := range streams {
		if !s.datagrams {
			return false
		}
	}
	return true
}

// peersOf returns where the streams come from, each once. Of datagrams of SOCKS that is the TCP connection
// on which the client asked for them. It is called without a lock.
func peersOf(streams map[*stream]struct{}) []netip.AddrPort {
	peers := map[netip.AddrPort]struct{}{}
	for s := range streams {
		peer := s.peer
		if s.control != nil {
			peer = s.control()
		}
		peers[peer] = struct{}{}
	}
	return slices.Collect(maps.Keys(peers))
}

// vacateLocked takes places out of the group, and returns their streams, which the caller
// kills. A place from which another stream has come meanwhile stays.
func (g *limitGroup) vacateLocked(gone places) map[*stream]struct{} {
	ended := map[*stream]struct{}{}
	for place, asked := range gone {
		now := g.addresses[place]
		if hasOthers(now, asked) {
			continue
		}
		maps.Copy(ended, now)
		g.streams -= len(now)
		g.shared[place].Leave(len(now))
		delete(g.addresses, place)
		delete(g.shared, place)
	}
	return ended
}

func hasOthers(streams, than map[*stream]struct{}) bool {
	for s := range streams {
		if _, known := than[s]; !known {
			return true
		}
	}
	return false
}
