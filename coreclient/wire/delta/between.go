package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// Between returns what lies between two documents of one node. Base and ETag are left empty.
func Between(base, target *Document) *Delta {
	d := &Delta{
		Revision: target.Revision, Digest: target.Digest(),
		Members:   mapBetween(base.Members, target.Members),
		ClientMap: mapBetween(base.ClientMap, target.ClientMap),
		Services:  map[string]ServiceDelta{},
	}
	for _, name := range sorted(base.Services) {
		if target.Services[name] == nil {
			d.Services[name] = ServiceDelta{Removed: true}
		}
	}
	for _, name := range sorted(target.Services) {
		if s, differs := serviceBetween(base.Services[name], target.Services[name]); differs {
			d.Services[name] = s
		}
	}
	return d
}

func mapBetween(base, target map[string]json.RawMessage) (m Map) {
	for _, key := range sorted(target) {
		was, had := base[key]
		switch {
		case !had && m.Added == nil:
			m.Added = map[string]json.RawMessage{key: target[key]}
		case !had:
			m.Added[key] = target[key]
		case bytes.Equal(was, target[key]):
		case m.Changed == nil:
			m.Changed = map[string]json.RawMessage{key: target[key]}
		default:
			m.Changed[key] = target[key]
		}
	}
	for _, key := range sorted(base) {
		if _, has := target[key]; !has {
			m.Removed = append(m.Removed, key)
		}
	}
	return m
}

func serviceBetween(base, target *ServiceParts) (s ServiceDelta, differs bool) {
	added := base == nil || base.Whole != nil && target.Whole == nil
	switch {
	case target.Whole != nil:
		return ServiceDelta{Whole: target.Whole}, base == nil || !bytes.Equal(base.Whole, target.Whole)
	case added:
		base = newService()
	}
	s.Members = mapBetween(base.Members, target.Members)
	for _, tag := range sorted(base.Inbounds) {
		if target.Inbounds[tag] == nil {
			s.Inbounds = append(s.Inbounds, InboundDelta{Tag: tag, Removed: true})
		}
	}
	for _, tag := range sorted(target.Inbounds) {
		if in, differs := inboundBetween(tag, base.Inbounds[tag], target.Inbounds[tag]); differs {
			s.Inbounds = append(s.Inbounds, in)
		}
	}
	return s, added || !s.Members.IsZero() || len(s.Inbounds) > 0
}

func inboundBetween(tag string, base, target *InboundParts) (in InboundDelta, differs bool) {
	in.Tag = tag
	if base == nil {
		base = &InboundParts{}
	}
	if !bytes.Equal(base.Inbound, target.Inbound) {
		in.Inbound = target.Inbound
	}
	clients := mapBetween(base.Clients, target.Clients)
	for _, key := range sorted(clients.Added) {
		in.Clients.Added = append(in.Clients.Added, clients.Added[key])
	}
	for _, key := range sorted(clients.Changed) {
		in.Clients.Changed = append(in.Clients.Changed, clients.Changed[key])
	}
	in.Clients.Removed = clients.Removed
	return in, in.Inbound != nil || !in.Clients.IsZero()
}

// Apply returns the document that the delta leads to from base, which stays as it is. The error is
// ErrMismatch where the delta does not fit base, or the digest of the result is not the delta's.
func Apply(base *Document, d *Delta) (*Document, error) {
	next, err := apply(base, d)
	if err == nil {
		// The JSON is made for its checks: an inbound has the tag that the delta says.
		_, err = next.JSON()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if sum := next.Digest(); sum != d.Digest {
		return nil, fmt.Errorf("%w: the digest of the result is %s, want %s", ErrMismatch, sum, d.Digest)
	}
	return next, nil
}

func apply(base *Document, d *Delta) (*Document, error) {
	next := &Document{Revision: d.Revision, Services: maps.Clone(base.Services)}
	if next.Services == nil {
		next.Services = map[string]*ServiceParts{}
	}
	for _, name := range [...]string{"revision", "clientMap", "services"} {
		if d.Members.Added[name] != nil || d.Members.Changed[name] != nil {
			return nil, fmt.Errorf("%s is no member that can be added or changed", name)
		}
	}
	var err error
	if next.Members, err = applyMap("member", base.Members, d.Members); err != nil {
		return nil, err
	}
	if next.ClientMap, err = applyMap("entry of clientMap", base.ClientMap, d.ClientMap); err != nil {
		return nil, err
	}
	for _, name := range sorted(d.Services) {
		change, before := d.Services[name], base.Services[name]
		switch {
		case change.Removed && before == nil:
			return nil, fmt.Errorf("the service %s is removed and was never there", name)
		case change.Removed:
			delete(next.Services, name)
		case change.Whole != nil && services[name] != (kindsOf{}) && change.Whole[0] == '{':
			return nil, fmt.Errorf("the service %s is taken apart, and the delta has it as one", name)
		case change.Whole != nil:
			next.Services[name] = &ServiceParts{Whole: change.Whole}
		default:
			if before == nil || before.Whole != nil {
				before = newService()
			}
			if next.Services[name], err = applyService(before, change, name); err != nil {
				return nil, fmt.Errorf("service %s: %w", name, err)
			}
		}
	}
	return next, nil
}

// applyMap applies a difference to a copy of members. what names one of them.
func applyMap(what string, members map[string]json.RawMessage, m Map) (map[string]json.RawMessage, error) {
	next := maps.Clone(members)
	if next == nil {
		next = map[string]json.RawMessage{}
	}
	for _, key := range m.Removed {
		if _, has := next[key]; !has {
			return nil, fmt.Errorf("a %s is removed and is not there", what)
		}
		delete(next, key)
	}
	for key, raw := range m.Changed {
		if _, has := next[key]; !has {
			return nil, fmt.Errorf("a %s is changed and is not there", what)
		}
		next[key] = raw
	}
	for key, raw := range m.Added {
		if _, has := next[key]; has {
			return nil, fmt.Errorf("a %s is added and is there already", what)
		}
		next[key] = raw
	}
	return next, nil
}

func applyService(base *ServiceParts, change ServiceDelta, name string) (next *ServiceParts, err error) {
	if _, known := services[name]; !known {
		return nil, errors.New("it is not taken apart")
	}
	next = &ServiceParts{Inbounds: maps.Clone(base.Inbounds)}
	if next.Members, err = applyMap("member", base.Members, change.Members); err != nil {
		return nil, err
	}
	for _, c := range change.Inbounds {
		before := next.Inbounds[c.Tag]
		switch {
		case c.Removed && before == nil:
			return nil, fmt.Errorf("inbound %q is removed and is not there", c.Tag)
		case c.Removed:
			delete(next.Inbounds, c.Tag)
			continue
		case before == nil && len(c.Inbound) == 0:
			return nil, fmt.Errorf("inbound %q is changed and is not there", c.Tag)
		case before == nil:
			before = &InboundParts{}
		}
		after := &InboundParts{Inbound: before.Inbound}
		if len(c.Inbound) > 0 {
			after.Inbound = c.Inbound
		}
		clients, err := c.Clients.byKey()
		if err != nil {
			return nil, fmt.Errorf("inbound %q: %w", c.Tag, err)
		}
		if after.Clients, err = applyMap("client", before.Clients, clients); err != nil {
			return nil, fmt.Errorf("inbound %q: %w", c.Tag, err)
		}
		next.Inbounds[c.Tag] = after
	}
	return next, nil
}

// byKey returns the clients by their keys.
func (c Clients) byKey() (m Map, err error) {
	m.Removed = c.Removed
	if m.Added, err = byKey(c.Added); err != nil {
		return m, err
	}
	m.Changed, err = byKey(c.Changed)
	return m, err
}

func byKey(clients []json.RawMessage) (map[string]json.RawMessage, error) {
	if len(clients) == 0 {
		return nil, nil
	}
	keyed, keys := make(map[string]json.RawMessage, len(clients)), newKeyReader()
	for _, raw := range clients {
		key, err := keys.key(raw)
		if err != nil {
			return nil, err
		}
		if _, twice := keyed[key]; twice {
			return nil, errors.New("two clients have one key")
		}
		keyed[key] = raw
	}
	return keyed, nil
}
