package delta

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
)

// Document is a document that was taken apart. The bytes are JSON, as Core sent them.
type Document struct {
	Revision int64
	// Members are those of the document, but for revision, clientMap and services.
	Members   map[string]json.RawMessage
	ClientMap map[string]json.RawMessage
	Services  map[string]*ServiceParts
}

// ServiceParts is one service of a document.
type ServiceParts struct {
	// Whole is the service's value where it is one element: it is none of those that are taken
	// apart, or it is no object. Nothing else is set then.
	Whole json.RawMessage
	// Members are those of the service. Of inbounds, the value is [].
	Members  map[string]json.RawMessage
	Inbounds map[string]*InboundParts // by tag
}

// InboundParts is one inbound of a document.
type InboundParts struct {
	Inbound json.RawMessage // with an empty list of clients
	Clients map[string]json.RawMessage
}

// Read takes a document apart. Elements share the document's memory. The error is that of Walk.
func Read(document []byte) (*Document, error) {
	d := &Document{Members: map[string]json.RawMessage{}, ClientMap: map[string]json.RawMessage{}, Services: map[string]*ServiceParts{}}
	err := Walk(document, func(e Element) (err error) {
		switch e.Kind {
		case Member:
			if e.Key == "revision" {
				d.Revision, err = strconv.ParseInt(string(e.Raw), 10, 64)
				return err
			}
			d.Members[e.Key] = e.Raw
		case ClientMap:
			d.ClientMap[e.Key] = e.Raw
		case Service:
			if _, known := services[e.Key]; known && string(e.Raw) == "{}" {
				d.Services[e.Key] = newService()
			} else {
				d.Services[e.Key] = &ServiceParts{Whole: e.Raw}
			}
		default:
			d.Services[serviceOf(e.Kind)].put(e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func newService() *ServiceParts {
	return &ServiceParts{Members: map[string]json.RawMessage{}, Inbounds: map[string]*InboundParts{}}
}

func serviceOf(kind Kind) string {
	name, _, _ := strings.Cut(string(kind), ".")
	return name
}

// put adds an element of the service.
func (s *ServiceParts) put(e Element) {
	switch e.Kind {
	case XrayMember, MTProtoMember:
		s.Members[e.Key] = e.Raw
	case XrayInbound, MTProtoInbound:
		s.Inbounds[e.Inbound] = &InboundParts{Inbound: e.Raw, Clients: map[string]json.RawMessage{}}
	default:
		s.Inbounds[e.Inbound].Clients[e.Key] = e.Raw
	}
}

// Elements calls f for each element, in an order that is always the same.
func (d *Document) Elements(f func(Element)) {
	f(Element{Kind: Member, Key: "revision", Raw: strconv.AppendInt(nil, d.Revision, 10)})
	each(d.Members, func(key string, raw []byte) { f(Element{Kind: Member, Key: key, Raw: raw}) })
	each(d.ClientMap, func(key string, raw []byte) { f(Element{Kind: ClientMap, Key: key, Raw: raw}) })
	for _, name := range sorted(d.Services) {
		s := d.Services[name]
		if s.Whole != nil {
			f(Element{Kind: Service, Key: name, Raw: s.Whole})
			continue
		}
		kinds := services[name]
		f(Element{Kind: Service, Key: name, Raw: []byte("{}")})
		each(s.Members, func(key string, raw []byte) { f(Element{Kind: kinds.member, Key: key, Raw: raw}) })
		for _, tag := range sorted(s.Inbounds) {
			in := s.Inbounds[tag]
			f(Element{Kind: kinds.inbound, Inbound: tag, Raw: in.Inbound})
			each(in.Clients, func(key string, raw []byte) {
				f(Element{Kind: kinds.client, Inbound: tag, Key: key, Raw: raw})
			})
		}
	}
}

// Digest is the digest of the document.
func (d *Document) Digest() (sum Digest) {
	h := NewHasher()
	d.Elements(func(e Element) { sum = sum.Plus(h.Hash(e)) })
	return sum
}

// JSON returns a document with these elements.
func (d *Document) JSON() ([]byte, error) {
	w := writer{}
	w.open('{')
	w.member("revision", strconv.AppendInt(nil, d.Revision, 10))
	for _, name := range sorted(d.Members) {
		w.member(name, d.Members[name])
	}
	w.name("clientMap")
	w.members(d.ClientMap)
	w.name("services")
	w.open('{')
	for _, name := range sorted(d.Services) {
		w.name(name)
		s := d.Services[name]
		if s.Whole != nil {
			w.to = append(w.to, s.Whole...)
			continue
		}
		if err := w.parts(name, s); err != nil {
			return nil, err
		}
	}
	w.shut('}')
	w.shut('}')
	return w.to, nil
}

func (w *writer) members(members map[string]json.RawMessage) {
	w.open('{')
	for _, name := range sorted(members) {
		w.member(name, members[name])
	}
	w.shut('}')
}

func (w *writer) parts(service string, s *ServiceParts) error {
	if _, has := s.Members["inbounds"]; !has && len(s.Inbounds) > 0 {
		return fmt.Errorf("the service %s has inbounds and no list of them", service)
	}
	w.open('{')
	for _, name := range sorted(s.Members) {
		if name != "inbounds" {
			w.member(name, s.Members[name])
			continue
		}
		w.name(name)
		w.open('[')
		for _, tag := range sorted(s.Inbounds) {
			w.next()
			if err := w.withClients(service, tag, s.Inbounds[tag]); err != nil {
				return err
			}
		}
		w.shut(']')
	}
	w.shut('}')
	return nil
}

// withClients writes an inbound with its clients in their list.
func (w *writer) withClients(service, tag string, in *InboundParts) error {
	named, where, err := Bare(service, in.Inbound)
	switch {
	case err != nil:
		return err
	case named != tag:
		return fmt.Errorf("inbound %q has the tag %q", tag, named)
	case where == 0 && len(in.Clients) > 0:
		return fmt.Errorf("inbound %q has clients and no list of them", tag)
	case where == 0:
		w.to = append(w.to, in.Inbound...)
		return nil
	}
	w.to = append(w.to, in.Inbound[:where+1]...)
	for _, key := range sorted(in.Clients) {
		w.next()
		w.to = append(w.to, in.Clients[key]...)
	}
	w.to = append(w.to, in.Inbound[where+1:]...)
	return nil
}

func sorted[V any](members map[string]V) []string { return slices.Sorted(maps.Keys(members)) }

func each(members map[string]json.RawMessage, f func(key string, raw []byte)) {
	for _, key := range sorted(members) {
		f(key, members[key])
	}
}

func decodeStrict(raw []byte, v any) error {
	return jsonv2.Unmarshal(raw, v, jsonv2.RejectUnknownMembers(true))
}

// ErrMismatch means that a delta does not fit the document that it is applied to, or does not lead
// to the digest that it promises. The document is asked for as a whole then.
var ErrMismatch = errors.New("the delta does not fit the configuration")
