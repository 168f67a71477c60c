package coreclient

import (
	"net/http"
	"strconv"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/secret"
)

// said is what Core's answers said of Core and of the node's key.
type said struct {
	core    wire.CoreIdentity
	nextKey secret.Text
}

// maxSaid bounds each text that Core says of itself, in bytes.
const maxSaid = 2000

// hear keeps what the headers of an answer to a route say. The address and the next key come
// with heartbeats alone.
func (c *Client) hear(path string, header http.Header) {
	c.hearing.Lock()
	defer c.hearing.Unlock()
	heard := said{}
	if before := c.said.Load(); before != nil {
		heard = *before
	}
	if id := text(header, wire.HeaderCoreID); id != "" {
		heard.core.ID = id
		heard.core.Epoch, _ = strconv.ParseInt(header.Get(wire.HeaderCoreEpoch), 10, 64) // 0 for none
	}
	if path == wire.PathHeartbeat {
		heard.core.NextURL = text(header, wire.HeaderCoreURL)
		heard.nextKey = secret.Text(text(header, wire.HeaderNextKey))
	}
	c.said.Store(&heard)
}

// text returns a header's value; empty where it is too long or does not print.
func text(header http.Header, name string) string {
	value := header.Get(name)
	if len(value) > maxSaid || printable(value, maxSaid) != value {
		return ""
	}
	return value
}

// Said returns what Core's answers said of Core, and the auth key that Core offers the node.
// Both are empty for a Core that does not say.
func (c *Client) Said() (wire.CoreIdentity, secret.Text) {
	if heard := c.said.Load(); heard != nil {
		return heard.core, heard.nextKey
	}
	return wire.CoreIdentity{}, ""
}
