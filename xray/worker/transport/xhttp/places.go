package xhttp

import (
	"net/http"
	"slices"
	"sync"
)

// allPlaces are the addresses on which XHTTP is or was listened on, in this process.
var allPlaces = places{all: map[string]*sharedPlace{}}

type places struct {
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

// take returns the listener that handles a request which came to a listener, nil for none, and a
// function to call at the request's end. That is the owner of the request's session; or, for a session
// without an owner, the newest listener, if that has such a path.
func (p *sharedPlace) take(r *http.Request, came *listener) (owner *listener, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest := came
	if n := len(p.listeners); n > 0 {
		newest = p.listeners[n-1]
	}
	reader := newest
	if !newest.serves(r) {
		reader = came
	}
	session := reader.session(r)
	if c := p.claims[session]; c != nil {
		owner = c.by
	} else if i := slices.IndexFunc(p.listeners, func(l *listener) bool { return l.has(r) }); i >= 0 {
		owner = p.listeners[i]
	} else if owner = reader; owner.closed.Load() {
		return nil, func() {}
	}
	if session == "" {
		return owner, func() {}
	}
	if p.claims[session] == nil {
		p.claims[session] = &claim{by: owner}
	}
	p.claims[session].requests++
	return owner, func() { p.release(session) }
}

func (p *sharedPlace) release(session string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.claims[session]
	if c.requests--; c.requests == 0 {
		delete(p.claims, session)
	}
}
