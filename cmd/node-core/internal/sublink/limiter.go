package sublink

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxMisses is how many unknown tokens one address may ask for in a window.
	maxMisses = 20
	window    = time.Minute
	// maxAddresses bounds the memory of a window: about 1 MB. Where more addresses miss, the
	// further ones are not counted: a token has 128 bits, so that guesses do not succeed anyway.
	maxAddresses = 20_000
)

// limiter slows down addresses from which tokens are guessed. IPv6 addresses count by their /64, which one
// customer has.
type limiter struct {
	mu     sync.Mutex
	since  time.Time
	misses map[netip.Prefix]int
}

func newLimiter() *limiter { return &limiter{misses: map[netip.Prefix]int{}} }

// allowed counts an unknown token, and reports whether the address may ask for more.
func (l *limiter) allowed(remote string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	of := customer(remote)
	if _, counted := l.misses[of]; counted || len(l.misses) < maxAddresses {
		l.misses[of]++
	}
	return l.misses[of] <= maxMisses
}

// turn begins a new window where the last one is over. The caller holds mu.
func (l *limiter) turn() {
	if now := time.Now(); now.Sub(l.since) >= window {
		l.since = now
		clear(l.misses)
	}
}

// customer returns the network of an address with its port; the zero Prefix for anything else.
func customer(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits)
	return prefix
}
