package hysteria

import (
	"sync"

	"github.com/apernet/quic-go"
)

// Clients has the connections of clients, by the client's email, which is unique over all inbounds. So
// the connection of a removed client is ended also where it has no stream. It outlives the inbounds: a
// drained worker serves the connections of closed ones. mu guards conns.
type Clients struct {
	mu    sync.Mutex
	conns map[string]map[*quic.Conn]struct{}
}

// NewClients makes an empty table.
func NewClients() *Clients {
	return &Clients{conns: map[string]map[*quic.Conn]struct{}{}}
}

func (c *Clients) add(email string, conn *quic.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns[email] == nil {
		c.conns[email] = map[*quic.Conn]struct{}{}
	}
	c.conns[email][conn] = struct{}{}
}

func (c *Clients) remove(email string, conn *quic.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if delete(c.conns[email], conn); len(c.conns[email]) == 0 {
		delete(c.conns, email)
	}
}

// End ends the connections of removed clients. Their inbounds let them in no more.
func (c *Clients) End(emails []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, email := range emails {
		for conn := range c.conns[email] {
			go func() { _ = conn.CloseWithError(noError, "") }() // it waits for the connection's goroutine
		}
	}
}
