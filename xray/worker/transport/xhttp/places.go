package xhttp

import (
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// allPlaces are the addresses on which XHTTP is or was listened on, in this process.
var allPlaces = places{all: map[string]*sharedPlace{}}

type places struct {
	workers atomic.Pointer[workers] // nil where this process can't reach other workers

	mu  sync.Mutex
	all map[string]*sharedPlace
}

// sharedPlace has those who listen on an address, one after the other, as long as they have
// connections or sessions.
type sharedPlace struct {
	of      *places
	address string

	mu        sync.Mutex
	listeners []*listener       // the oldest first
	claims    map[string]*claim // of requests that are handled, by session
}

// claim keeps the requests of a session together that come before xray-core's handler
// knows it.
type claim struct {
	by       *listener
	requests int
}

// join puts a listener at the end of its address's.
func (p *places) join(address string, l *listener) *sharedPlace {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := p.all[address]
	if place == nil {
		place = &sharedPlace{of: p, address: address, claims: map[string]*claim{}}
		p.all[address] = place
	}
	place.mu.Lock()
	defer place.mu.Unlock()
	place.listeners = append(place.listeners, l)
	return place
}

// at returns the place of an address, or else all of its port: the configurations of two workers may
// differ in the addresses.
func (p *places) at(address string) (fit []*sharedPlace) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if place := p.all[address]; place != nil {
		return []*sharedPlace{place}
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil // a unix socket's
	}
	for _, other := range slices.Sorted(maps.Keys(p.all)) {
		if _, has, err := net.SplitHostPort(other); err == nil && has == port {
			fit = append(fit, p.all[other])
		}
	}
	return fit
}

// tidy forgets the listeners that are over.
func (p *sharedPlace) tidy() {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners = slices.DeleteFunc(p.listeners, (*listener).over)
	if len(p.listeners) == 0 && p.of.all[p.address] == p {
		delete(p.of.all, p.address)
	}
}

// serve handles a request, which came to a listener of this process, or else, with a nil came, from
// another worker. The owner of the request's session handles it, in this process or in another worker.
// Where the session has none, it is a new one, and the newest listener of the address becomes its
// owner. serve returns false where none takes new sessions. A request that continues a session, of which no
// worker says that it has it while another one does not answer, waits, and gets 503 (Service Unavailable) in
// the end: in a new session it would be lost. So does the first request of a session that another worker has
// told of.
func (p *sharedPlace) serve(w http.ResponseWriter, r *http.Request, came *listener, from origin) bool {
	x := p.of.workers.Load()
	for began := time.Now(); ; {
		owner, done := p.known(r, came)
		if owner == nil {
			announced, kind := x.announced(), p.part(r, came)
			switch x.passOn(w, r, p.address, from, kind) {
			case answered:
				return true
			case noAnswer:
				if r.Context().Err() != nil {
					return true
				}
				if kind != continues && !x.had(p.address, p.session(r, came)) {
					break
				}
				if time.Since(began) > patience {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				select {
				case <-time.After(lookAgain):
				case <-r.Context().Done():
					return true
				}
				continue
			}
			var decided bool
			if owner, done, decided = p.begin(r, came, func() bool { return x.announced() == announced }); !decided {
				continue
			}
		}
		defer done()
		if owner == nil {
			return false
		}
		owner.requests.ServeHTTP(w, r)
		return true
	}
}

// part returns which part of a session a request is, by the settings of the listener that reads it.
func (p *sharedPlace) part(r *http.Request, came *listener) part {
	p.mu.Lock()
	defer p.mu.Unlock()
	reader := p.reader(r, came)
	if reader == nil {
		return begins
	}
	is := reader.part(r)
	if is == foreign && slices.ContainsFunc(p.listeners, func(l *listener) bool { return l.serves(r) }) {
		return begins
	}
	return is
}

// session returns the id of a request's, by the same settings.
func (p *sharedPlace) session(r *http.Request, came *listener) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reader := p.reader(r, came); reader != nil {
		return reader.session(r)
	}
	return ""
}

// serves tells whether a request could be a listener's of the place.
func (p *sharedPlace) serves(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.listeners, func(l *listener) bool { return l.serves(r) })
}

// known returns the owner of the request's session, and a function to call at the request's end. It
// returns nil for a session that no listener of this process has.
func (p *sharedPlace) known(r *http.Request, came *listener) (owner *listener, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	reader := p.reader(r, came)
	if reader == nil {
		return nil, nil
	}
	return p.knownLocked(reader.session(r), r)
}

func (p *sharedPlace) knownLocked(session string, r *http.Request) (owner *listener, done func()) {
	if c := p.claims[session]; c != nil {
		return c.by, p.claim(session, c.by)
	}
	if i := slices.IndexFunc(p.listeners, func(l *listener) bool { return l.has(r) }); i >= 0 {
		return p.listeners[i], p.claim(session, p.listeners[i])
	}
	return nil, nil
}

// begin makes the newest listener the owner of a request's session, or the one that the request came
// to, if only that has such a path. It returns nil for the owner where that takes no new sessions, and
// decides nothing where still returns false. still is called while no other request can begin.
func (p *sharedPlace) begin(r *http.Request, came *listener, still func() bool) (owner *listener, done func(), decided bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	reader := p.reader(r, came)
	if reader == nil {
		return nil, func() {}, true
	}
	session := reader.session(r)
	if owner, done = p.knownLocked(session, r); owner != nil {
		return owner, done, true
	}
	if !still() {
		return nil, nil, false
	}
	if reader.closed.Load() && !p.of.workers.Load().servesOn(p.address) {
		return nil, func() {}, true
	}
	return reader, p.claim(session, reader), true
}

// reader returns the listener whose settings say what a request is; nil for none.
func (p *sharedPlace) reader(r *http.Request, came *listener) *listener {
	newest := came
	if n := len(p.listeners); n > 0 {
		newest = p.listeners[n-1]
	}
	if came != nil && !newest.serves(r) {
		return came
	}
	return newest
}

// claim keeps a session for its owner until the function that it returns is called.
func (p *sharedPlace) claim(session string, owner *listener) (done func()) {
	if session == "" {
		return func() {}
	}
	if p.claims[session] == nil {
		p.claims[session] = &claim{by: owner}
	}
	p.claims[session].requests++
	return func() { p.release(session) }
}

func (p *sharedPlace) release(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.claims[session]
	if c.requests--; c.requests == 0 {
		delete(p.claims, session)
	}
}
