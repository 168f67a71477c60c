package rendered

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire/delta"
)

// version is a document that a node was given: what is needed to tell what has changed since.
type version struct {
	etag     string
	revision int64
	seq      int64 // of the snapshot
	layout   *layout
	grants   map[int64]*corestore.Grant
	digest   delta.Digest
	known    bool // the digest is
}

// span is what changed in the roster between two numbers, rendered once for all nodes.
type span struct {
	from, until int64
	changes     []change // one for each client that is not as it was

	mu     sync.Mutex // held while texts are made
	values map[look][][2][]byte
}

// netOf sums up changes, in their order, to one for each client.
func netOf(from, until int64, changes []change) *span {
	s := &span{from: from, until: until, values: map[look][][2][]byte{}}
	at := map[int64]int{}
	for _, c := range changes {
		if i, has := at[c.id()]; has {
			s.changes[i].after = c.after
			continue
		}
		at[c.id()] = len(s.changes)
		s.changes = append(s.changes, c)
	}
	s.changes = slices.DeleteFunc(s.changes, func(c change) bool { return c.before == nil && c.after == nil })
	return s
}

// withGrants returns what changed for a node on which clients have grants, from a document with the grants
// before to another one. A client whose grant is another one is a changed client.
func (s *span) withGrants(before map[int64]*corestore.Grant, to *Document) *span {
	if len(before) == 0 && len(to.grants) == 0 {
		return s
	}
	next := &span{from: s.from, until: s.until, values: map[look][][2][]byte{}}
	there := map[int64]bool{}
	for _, c := range s.changes {
		there[c.id()] = true
		next.changes = append(next.changes, change{c.seq, granted(c.before, before[c.id()]), granted(c.after, to.grants[c.id()])})
	}
	ids := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(to.grants))
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		was, is := before[id], to.grants[id]
		if there[id] || was != nil && is != nil && *was == *is {
			continue
		}
		if client := to.now.client(id); client != nil {
			next.changes = append(next.changes, change{s.until, granted(client, was), granted(client, is)})
		}
	}
	return next
}

// valuesOf returns the clients of the changes as they look in a list, before and after.
func (s *span) valuesOf(l look) ([][2][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if values, has := s.values[l]; has {
		return values, nil
	}
	values := make([][2][]byte, len(s.changes))
	for i, c := range s.changes {
		for j, client := range []*corestore.Client{c.before, c.after} {
			if client == nil {
				continue
			}
			_, value, err := l.appendClient(nil, client)
			if err != nil {
				return nil, err
			}
			values[i][j] = value
		}
	}
	s.values[l] = values
	return values, nil
}

// look is how changed clients look in a list. A list for which a client has a credential of its own
// has a look of its own.
func (s *span) look(l *list) look {
	if l.inbound == nil {
		return look{}
	}
	bound := func(c *corestore.Client) bool {
		return c != nil && slices.ContainsFunc(c.Credentials, func(own corestore.Credential) bool { return own.ProtocolID != 0 })
	}
	if slices.ContainsFunc(s.changes, func(c change) bool { return bound(c.before) || bound(c.after) }) {
		return look{l.inbound.Form, l.inbound.ID}
	}
	return look{l.inbound.Form, 0}
}

// between returns the delta from a version to a document of the same node. It is nil where the
// document is to be sent as a whole: much has changed, or lists of clients as such.
func between(base version, to *Document, s *span) (*delta.Delta, delta.Digest, error) {
	if to.layout == nil || base.layout == nil || !sameLists(base.layout, to.layout) || 2*len(s.changes) > to.clients()+minWhole {
		return nil, delta.Digest{}, nil
	}
	d := &delta.Delta{Base: base.etag, ETag: to.ETag, Revision: to.Revision, Services: map[string]delta.ServiceDelta{}}
	sum := base.digest.Minus(revisionHash(base.revision)).Plus(revisionHash(to.Revision))
	for i := range to.layout.lists {
		l := &to.layout.lists[i]
		m, moved, err := s.changesOf(l)
		if err != nil {
			return nil, sum, err
		}
		sum = sum.Plus(moved)
		if i == 0 {
			d.ClientMap = m
			continue
		}
		if !m.IsZero() {
			service := d.Services[l.inbound.Service]
			service.Inbounds = append(service.Inbounds, delta.InboundDelta{Tag: l.tag, Clients: listOf(m)})
			d.Services[l.inbound.Service] = service
		}
	}
	if base.layout != to.layout {
		addLayout(d, base.layout, to.layout)
	}
	if base.layout != to.layout || !base.known {
		var err error
		if sum, err = to.digest(); err != nil {
			return nil, sum, err
		}
	}
	d.Digest = sum
	return d, sum, nil
}

// minWhole is how many changed clients are sent as a delta, however few there are.
const minWhole = 64

// changesOf returns what changed in one list, and by how much its digest did.
func (s *span) changesOf(l *list) (m delta.Map, moved delta.Digest, err error) {
	values, err := s.valuesOf(s.look(l))
	if err != nil {
		return m, moved, err
	}
	hasher := delta.NewHasher()
	was, is := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	for i, c := range s.changes {
		for j, client := range []*corestore.Client{c.before, c.after} {
			if client == nil || !slices.Contains(l.groups, client.GroupID) {
				continue
			}
			value := values[i][j]
			if len(value) == 0 { // it is none of the list
				continue
			}
			key, err := keyOf(l.placed, client, value)
			if err != nil {
				return m, moved, err
			}
			h := hasher.Hash(delta.Element{Kind: l.kind, Inbound: l.tag, Key: key, Raw: value})
			if j == 0 {
				was[key], moved = value, moved.Minus(h)
			} else {
				is[key], moved = value, moved.Plus(h)
			}
		}
	}
	return mapOf(was, is), moved, nil
}

// mapOf is the difference of what was under some keys and what is there now.
func mapOf(was, is map[string]json.RawMessage) (m delta.Map) {
	put := func(to *map[string]json.RawMessage, key string, value json.RawMessage) {
		if *to == nil {
			*to = map[string]json.RawMessage{}
		}
		(*to)[key] = value
	}
	for key, value := range is {
		switch before, had := was[key]; {
		case !had:
			put(&m.Added, key, value)
		case !bytes.Equal(before, value):
			put(&m.Changed, key, value)
		}
	}
	for key := range was {
		if _, has := is[key]; !has {
			m.Removed = append(m.Removed, key)
		}
	}
	slices.Sort(m.Removed)
	return m
}

func listOf(m delta.Map) (c delta.Clients) {
	for _, key := range sorted(m.Added) {
		c.Added = append(c.Added, m.Added[key])
	}
	for _, key := range sorted(m.Changed) {
		c.Changed = append(c.Changed, m.Changed[key])
	}
	c.Removed = m.Removed
	return c
}

// sameLists reports whether the lists that two layouts have both are the same, and the other ones are
// gone.
func sameLists(base, to *layout) bool {
	if base == to {
		return true
	}
	before := map[placed]*list{}
	for i := range base.lists {
		before[base.lists[i].placed] = &base.lists[i]
	}
	for i := range to.lists {
		l := &to.lists[i]
		was := before[l.placed]
		if was == nil {
			if len(l.groups) > 0 {
				return false
			}
			continue
		}
		if !slices.Equal(was.groups, l.groups) {
			return false
		}
		if l.inbound != nil && (was.inbound.Form != l.inbound.Form || was.inbound.ID != l.inbound.ID) {
			return false
		}
		delete(before, l.placed)
	}
	// An inbound that has lost its list, and is there, would keep its clients.
	for at := range before {
		for i := range to.of.Inbounds {
			if in := &to.of.Inbounds[i]; in.Tag == at.tag && clientKind(in.Service) == at.kind {
				return false
			}
		}
	}
	return true
}

// addLayout adds to a delta what differs in two layouts.
func addLayout(d *delta.Delta, base, to *layout) {
	type at struct {
		kind     delta.Kind
		tag, key string
	}
	was, is := map[at][]byte{}, map[at][]byte{}
	base.elements(func(e delta.Element) { was[at{e.Kind, e.Inbound, e.Key}] = e.Raw })
	to.elements(func(e delta.Element) { is[at{e.Kind, e.Inbound, e.Key}] = e.Raw })
	for _, service := range []string{delta.Xray, delta.MTProto} {
		member, inbound := delta.XrayMember, delta.XrayInbound
		if service == delta.MTProto {
			member, inbound = delta.MTProtoMember, delta.MTProtoInbound
		}
		there := at{delta.Service, "", service}
		if is[there] == nil {
			if was[there] != nil {
				d.Services[service] = delta.ServiceDelta{Removed: true}
			}
			continue
		}
		s := d.Services[service]
		before, after := map[string]json.RawMessage{}, map[string]json.RawMessage{}
		fixedBefore, fixedAfter := map[string]map[string]json.RawMessage{}, map[string]map[string]json.RawMessage{} // by tag
		for where, raw := range was {
			switch {
			case where.kind == member:
				before[where.key] = raw
			case where.kind == clientKind(service) && is[at{inbound, where.tag, ""}] != nil:
				putIn(fixedBefore, where.tag, where.key, raw)
			case where.kind == inbound && is[where] == nil:
				s.Inbounds = append(s.Inbounds, delta.InboundDelta{Tag: where.tag, Removed: true})
			}
		}
		for where, raw := range is {
			switch {
			case where.kind == member:
				after[where.key] = raw
			case where.kind == clientKind(service):
				putIn(fixedAfter, where.tag, where.key, raw)
			case where.kind == inbound && !bytes.Equal(was[where], raw):
				inboundOf(&s, where.tag).Inbound = raw
			}
		}
		for i := range to.of.Inbounds {
			tag := to.of.Inbounds[i].Tag
			if m := mapOf(fixedBefore[tag], fixedAfter[tag]); !m.IsZero() {
				in := inboundOf(&s, tag)
				clients := listOf(m)
				in.Clients.Added = append(in.Clients.Added, clients.Added...)
				in.Clients.Changed = append(in.Clients.Changed, clients.Changed...)
				in.Clients.Removed = append(in.Clients.Removed, clients.Removed...)
			}
		}
		s.Members = mapOf(before, after)
		if len(s.Inbounds) > 0 || !s.Members.IsZero() || was[there] == nil {
			d.Services[service] = s
		}
	}
}

// inboundOf returns what differs of an inbound, which it adds to s where it is not there.
func inboundOf(s *delta.ServiceDelta, tag string) *delta.InboundDelta {
	at := slices.IndexFunc(s.Inbounds, func(in delta.InboundDelta) bool { return in.Tag == tag })
	if at < 0 {
		at, s.Inbounds = len(s.Inbounds), append(s.Inbounds, delta.InboundDelta{Tag: tag})
	}
	return &s.Inbounds[at]
}

func putIn(all map[string]map[string]json.RawMessage, tag, key string, raw []byte) {
	if all[tag] == nil {
		all[tag] = map[string]json.RawMessage{}
	}
	all[tag][key] = raw
}
