package transport

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
)

// xhttpPlaces are the addresses on which XHTTP is or was listened on, in this process.
var xhttpPlaces = places{all: map[string]*xhttpPlace{}}

type places struct {
	mu  sync.Mutex
	all map[string]*xhttpPlace
}

// xhttpPlace has those who listen on an address, one after the other, as long as they have
// connections or sessions.
type xhttpPlace struct {
	address string
	// listeners are the oldest first. The list itself is never written to.
	listeners atomic.Pointer[[]*xhttpListener]
}

// join puts a listener at the end of its address's.
func (p *places) join(address string, l *xhttpListener) *xhttpPlace {
	p.mu.Lock()
	defer p.mu.Unlock()
	place := p.all[address]
	if place == nil {
		place = &xhttpPlace{address: address}
		p.all[address] = place
	}
	place.listeners.Store(new(append(slices.Clone(place.list()), l)))
	return place
}

func (p *xhttpPlace) list() []*xhttpListener {
	if list := p.listeners.Load(); list != nil {
		return *list
	}
	return nil
}

// tidy forgets the listeners that are over.
func (p *xhttpPlace) tidy() {
	if !slices.ContainsFunc(p.list(), (*xhttpListener).over) {
		return
	}
	xhttpPlaces.mu.Lock()
	defer xhttpPlaces.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(p.list()), (*xhttpListener).over)
	p.listeners.Store(&left)
	if len(left) == 0 {
		delete(xhttpPlaces.all, p.address)
	}
}

// ownerOf is who handles a request that came to a listener.
func (p *xhttpPlace) ownerOf(r *http.Request, to *xhttpListener) *xhttpListener {
	list := p.list()
	if len(list) == 1 {
		return to
	}
	if i := slices.IndexFunc(list, func(l *xhttpListener) bool { return l.has(r) }); i >= 0 {
		return list[i]
	}
	if len(list) > 0 {
		if newest := list[len(list)-1]; !newest.closed.Load() && newest.serves(r) {
			return newest
		}
	}
	return to
}
