package delta

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// Names of the HTTP exchange (RFC 3229): the request has HeaderAccept with Manipulation, and the
// answer StatusIMUsed, HeaderUsed with Manipulation, and HeaderBase with the ETag of the base.
const (
	HeaderAccept = "A-Im"
	HeaderUsed   = "Im"
	HeaderBase   = "Delta-Base"
	Manipulation = "node-config-delta"
)

// Delta is what lies between two documents of one node, the base and the target.
type Delta struct {
	Base     string `json:"base"`     // ETag of the base, with its quotes
	ETag     string `json:"etag"`     // ETag of the target, with its quotes
	Revision int64  `json:"revision"` // of the target
	// Digest is that of the target.
	Digest Digest `json:"digest"`
	// Members are those of the document, but for revision, clientMap and services.
	Members   Map `json:"members,omitzero"`
	ClientMap Map `json:"clientMap,omitzero"`
	// Services has the services that differ, by name.
	Services map[string]ServiceDelta `json:"services,omitempty"`
}

// Map is the difference of two objects whose members are elements. The values are JSON.
type Map struct {
	Added   map[string]json.RawMessage `json:"added,omitempty"`
	Changed map[string]json.RawMessage `json:"changed,omitempty"`
	Removed []string                   `json:"removed,omitempty"`
}

// ServiceDelta is the difference of one service. A service that the base lacks is added, with what
// the delta has of it.
type ServiceDelta struct {
	// Removed says that the target lacks the service. Nothing else is set then.
	Removed bool `json:"removed,omitempty"`
	// Whole is the service's value where it is one element, in the target or in the base.
	Whole json.RawMessage `json:"whole,omitempty"`
	// Members are those of the service. Of inbounds, the value is [].
	Members  Map            `json:"members,omitzero"`
	Inbounds []InboundDelta `json:"inbounds,omitempty"`
}

// InboundDelta is the difference of one inbound.
type InboundDelta struct {
	Tag string `json:"tag"`
	// Removed says that the target lacks the inbound and its clients. Nothing else is set then.
	Removed bool `json:"removed,omitempty"`
	// Inbound is the inbound with an empty list of clients, where that is new or differs.
	Inbound json.RawMessage `json:"inbound,omitempty"`
	Clients Clients         `json:"clients,omitzero"`
}

// Clients is the difference of two lists of clients. Added and Changed are clients, whose keys are
// those that ClientKey returns; Removed are keys.
type Clients struct {
	Added   []json.RawMessage `json:"added,omitempty"`
	Changed []json.RawMessage `json:"changed,omitempty"`
	Removed []string          `json:"removed,omitempty"`
}

// IsZero reports whether nothing differs.
func (m Map) IsZero() bool { return len(m.Added)+len(m.Changed)+len(m.Removed) == 0 }

// IsZero reports whether nothing differs.
func (c Clients) IsZero() bool { return len(c.Added)+len(c.Changed)+len(c.Removed) == 0 }

// Decode reads a delta. The bytes of elements are copied as they stand. It refuses members that it
// does not know: what they mean would be missing in the target.
func Decode(raw []byte) (*Delta, error) {
	if !valid(raw) { // one value, no member twice, UTF-8
		return nil, errors.New("read a delta: it is no JSON, or has a member twice")
	}
	d := new(Delta)
	if err := decodeStrict(raw, d); err != nil {
		return nil, fmt.Errorf("read a delta: %w", err)
	}
	if d.Base == "" || d.ETag == "" || d.Digest == (Digest{}) {
		return nil, errors.New("read a delta: it has no base, etag or digest")
	}
	return d, nil
}

// Append appends the JSON of the delta to to, with the bytes of elements as they are.
func (d *Delta) Append(to []byte) []byte {
	w := writer{to}
	w.open('{')
	w.text("base", d.Base)
	w.text("etag", d.ETag)
	w.member("revision", fmt.Appendf(nil, "%d", d.Revision))
	w.text("digest", d.Digest.String())
	w.changes("members", d.Members)
	w.changes("clientMap", d.ClientMap)
	if len(d.Services) > 0 {
		w.name("services")
		w.open('{')
		for _, name := range sorted(d.Services) {
			w.name(name)
			w.service(d.Services[name])
		}
		w.shut('}')
	}
	w.shut('}')
	return w.to
}

// writer writes JSON without touching the bytes of elements, which encoding/json would compact.
type writer struct{ to []byte }

// next puts a comma behind the value before, if there is one.
func (w *writer) next() {
	if last := w.to[len(w.to)-1]; last != '{' && last != '[' && last != ':' {
		w.to = append(w.to, ',')
	}
}

func (w *writer) open(bracket byte) { w.to = append(w.to, bracket) }
func (w *writer) shut(bracket byte) { w.to = append(w.to, bracket) }

func (w *writer) quote(text string) {
	w.to, _ = jsontext.AppendQuote(w.to, text) // the only error is of invalid UTF-8, which it replaces
}

func (w *writer) name(name string) {
	w.next()
	w.quote(name)
	w.to = append(w.to, ':')
}

func (w *writer) member(name string, value []byte) {
	w.name(name)
	w.to = append(w.to, value...)
}

func (w *writer) text(name, text string) {
	w.name(name)
	w.quote(text)
}

func (w *writer) texts(name string, texts []string) {
	if len(texts) == 0 {
		return
	}
	w.name(name)
	w.open('[')
	for _, text := range texts {
		w.next()
		w.quote(text)
	}
	w.shut(']')
}

func (w *writer) values(name string, values []json.RawMessage) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	w.open('[')
	for _, value := range values {
		w.next()
		w.to = append(w.to, value...)
	}
	w.shut(']')
}

func (w *writer) object(name string, members map[string]json.RawMessage) {
	if len(members) == 0 {
		return
	}
	w.name(name)
	w.open('{')
	for _, member := range sorted(members) {
		w.member(member, members[member])
	}
	w.shut('}')
}

func (w *writer) changes(name string, m Map) {
	if m.IsZero() {
		return
	}
	w.name(name)
	w.open('{')
	w.object("added", m.Added)
	w.object("changed", m.Changed)
	w.texts("removed", m.Removed)
	w.shut('}')
}

func (w *writer) service(s ServiceDelta) {
	w.open('{')
	if s.Removed {
		w.member("removed", []byte("true"))
	}
	if len(s.Whole) > 0 {
		w.member("whole", s.Whole)
	}
	w.changes("members", s.Members)
	if len(s.Inbounds) > 0 {
		w.name("inbounds")
		w.open('[')
		for _, in := range s.Inbounds {
			w.next()
			w.inbound(in)
		}
		w.shut(']')
	}
	w.shut('}')
}

func (w *writer) inbound(in InboundDelta) {
	w.open('{')
	w.text("tag", in.Tag)
	if in.Removed {
		w.member("removed", []byte("true"))
	}
	if len(in.Inbound) > 0 {
		w.member("inbound", in.Inbound)
	}
	if !in.Clients.IsZero() {
		w.name("clients")
		w.open('{')
		w.values("added", in.Clients.Added)
		w.values("changed", in.Clients.Changed)
		w.texts("removed", in.Clients.Removed)
		w.shut('}')
	}
	w.shut('}')
}
