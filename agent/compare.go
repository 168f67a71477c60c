package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nodeagent/coreclient/wire/delta"
)

// errDiffers tells that a document differs in more than clients and entries of clientMap.
var errDiffers = errors.New("it differs in more than clients")

// between returns what lies between the document that the node holds, of which running was made, and
// a whole one, as if Core had sent it: only clients and entries of clientMap that differ are parsed
// then. All others are compared by their hashes. The error tells that the whole document has to be
// parsed.
func (h *held) between(running desired, document []byte, etag string) (*delta.Delta, error) {
	hashes, err := h.hashes.inMemory() // each of them is looked at
	if err != nil {
		return nil, err
	}
	c := &comparison{ids: h.ids, hashes: hashes, hasher: delta.NewHasher(), seen: make(map[elementID]bool, hashes.length), inbounds: map[clientList]*delta.InboundDelta{}}
	if err := delta.Walk(document, c.element); err != nil {
		return nil, err
	}
	d := &delta.Delta{Base: h.etag, ETag: etag, Revision: c.revision, Digest: c.digest, ClientMap: c.clientMap}
	gone := func(e delta.Element) bool {
		id := h.ids.of(e)
		_, was := hashes.find(id)
		if !was || c.seen[id] {
			return false
		}
		c.left--
		return true
	}
	c.left = hashes.length - c.found
	removed := func(of clientList, key string) {
		if c.left > 0 && gone(delta.Element{Kind: of.kind, Inbound: of.tag, Key: key}) {
			c.inbound(of).Clients.Removed = append(c.inbound(of).Clients.Removed, key)
		}
	}
	for tag, in := range running.xray.Inbounds {
		for _, client := range in.Clients {
			removed(clientList{delta.XrayClient, tag}, client.Key)
		}
	}
	for _, in := range running.mtproto.Inbounds {
		for _, client := range in.Clients {
			removed(clientList{delta.MTProtoClient, in.Tag}, client.ID)
		}
	}
	if c.left > 0 {
		for key := range running.clientMap.keys() {
			if gone(delta.Element{Kind: delta.ClientMap, Key: key}) {
				d.ClientMap.Removed = append(d.ClientMap.Removed, key)
			}
		}
	}
	if c.left != 0 { // an inbound or a member is gone
		return nil, errDiffers
	}
	d.Services = c.services()
	return d, nil
}

// comparison is a document while it is compared with the one that the node holds.
type comparison struct {
	ids       *identifier
	hashes    hashTable // of the document that the node holds
	hasher    *delta.Hasher
	revision  int64
	digest    delta.Digest
	seen      map[elementID]bool
	found     int // elements of hashes that the document has too, changed or not
	left      int // elements of hashes that the document lacks
	clientMap delta.Map
	inbounds  map[clientList]*delta.InboundDelta
}

func (c *comparison) inbound(of clientList) *delta.InboundDelta {
	if c.inbounds[of] == nil {
		c.inbounds[of] = &delta.InboundDelta{Tag: of.tag}
	}
	return c.inbounds[of]
}

// services returns what differs in the services; nil for nothing.
func (c *comparison) services() (services map[string]delta.ServiceDelta) {
	for name, kind := range clientKinds {
		var differs []delta.InboundDelta
		for of, in := range c.inbounds {
			if of.kind == kind {
				differs = append(differs, *in)
			}
		}
		if len(differs) == 0 {
			continue
		}
		if services == nil {
			services = map[string]delta.ServiceDelta{}
		}
		slices.SortFunc(differs, func(a, b delta.InboundDelta) int { return strings.Compare(a.Tag, b.Tag) })
		services[name] = delta.ServiceDelta{Inbounds: differs}
	}
	return services
}

// element compares one element.
func (c *comparison) element(e delta.Element) (err error) {
	id := c.ids.of(e)
	hash := c.hasher.Hash(e)
	c.digest = c.digest.Plus(hash)
	if c.seen[id] {
		return fmt.Errorf("%w: two elements have one id", errNoDeltas)
	}
	c.seen[id] = true
	before, was := c.hashes.find(id)
	if was {
		c.found++
	}
	if e.Kind == delta.Member && e.Key == "revision" {
		c.revision, err = strconv.ParseInt(string(e.Raw), 10, 64)
		return err
	}
	if was && before == hash {
		return nil
	}
	raw := json.RawMessage(slices.Clone(e.Raw))
	switch e.Kind {
	case delta.ClientMap:
		if was {
			put(&c.clientMap.Changed, e.Key, raw)
		} else {
			put(&c.clientMap.Added, e.Key, raw)
		}
	case delta.XrayClient, delta.MTProtoClient:
		clients := &c.inbound(clientList{e.Kind, e.Inbound}).Clients
		if was {
			clients.Changed = append(clients.Changed, raw)
		} else {
			clients.Added = append(clients.Added, raw)
		}
	case delta.Member, delta.Service, delta.XrayMember, delta.XrayInbound, delta.MTProtoMember, delta.MTProtoInbound:
		return errDiffers
	}
	return nil
}

func put(to *map[string]json.RawMessage, key string, raw json.RawMessage) {
	if *to == nil {
		*to = map[string]json.RawMessage{}
	}
	(*to)[key] = raw
}

// manyChanged is how many elements may differ so that what differs is applied and not the whole.
const manyChanged = 10_000

// size is how many elements a delta of clients changes.
func size(d *delta.Delta) int {
	n := len(d.ClientMap.Added) + len(d.ClientMap.Changed) + len(d.ClientMap.Removed)
	for _, service := range d.Services {
		for _, in := range service.Inbounds {
			n += len(in.Clients.Added) + len(in.Clients.Changed) + len(in.Clients.Removed)
		}
	}
	return n
}
