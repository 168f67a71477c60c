package rendered

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"

	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire/delta"
)

// layout is what a node's documents have around their clients. It is never changed.
type layout struct {
	of    *nodeconfig.Layout
	lists []list // clientMap and then the inbounds that have a list
	// glue are the texts behind each list, up to the next one. The text before the first list has
	// the revision in it.
	glue []glue
	// fixed is the sum of the elements but for clients of subscriptions, clientMap and the revision.
	fixed delta.Digest
}

type glue struct {
	sum    [sha256.Size]byte
	packed []byte
	size   int
}

// list is a list of clients in a document.
type list struct {
	placed
	groups  []int64
	inbound *nodeconfig.Inbound // nil for clientMap
	begun   bool                // the text before the list's pieces has clients of it already
}

func (l *list) lookIn(c *chunk) look {
	if l.inbound == nil {
		return look{}
	}
	return c.lookOf(l.inbound)
}

// before returns the text before clientMap.
func before(revision int64) []byte {
	head, _ := json.Marshal(revision) // a number always marshals
	return append(append([]byte(`{"revision":`), head...), `,"clientMap":{`...)
}

// newLayout makes the layout of what the rows say.
func newLayout(of *nodeconfig.Layout) *layout {
	l := &layout{of: of}
	l.lists = append(l.lists, list{placed: placed{kind: delta.ClientMap}, groups: of.Mapped})
	hasher := delta.NewHasher()
	fixed := func(e delta.Element) { l.fixed = l.fixed.Plus(hasher.Hash(e)) }
	l.elements(fixed)

	text := []byte(`},"services":{"xray":{"inbounds":[`)
	service, first := delta.Xray, true
	close := func(members []nodeconfig.Member) {
		text = append(text, ']')
		for _, m := range members {
			text = append(text, `,"`...)
			text = append(append(append(text, m.Name...), `":`...), m.Raw...)
		}
		text = append(text, '}')
	}
	for i := range of.Inbounds {
		in := &of.Inbounds[i]
		if in.Service != service {
			close(of.Xray)
			text = append(text, `,"mtproto":{"inbounds":[`...)
			service, first = in.Service, true
		}
		if !first {
			text = append(text, ',')
		}
		first = false
		if in.List == 0 {
			text = append(text, in.Raw...)
			continue
		}
		text = append(text, in.Raw[:in.List+1]...)
		for i, fixed := range in.Fixed {
			if i > 0 {
				text = append(text, ',')
			}
			text = append(text, fixed.Raw...)
		}
		l.addGlue(text)
		l.lists = append(l.lists, list{placed{clientKind(in.Service), in.Tag}, in.Groups, in, len(in.Fixed) > 0})
		text = append([]byte(nil), in.Raw[in.List+1:]...)
	}
	if service == delta.Xray {
		close(of.Xray)
	} else {
		close(of.MTProto)
	}
	l.addGlue(append(text, `}}`...))
	return l
}

// equals reports whether two layouts give the same documents.
func (l *layout) equals(other *layout) bool {
	return l.fixed == other.fixed && slices.EqualFunc(l.glue, other.glue, func(a, b glue) bool { return a.sum == b.sum && a.size == b.size }) &&
		slices.EqualFunc(l.lists, other.lists, func(a, b list) bool {
			return a.placed == b.placed && slices.Equal(a.groups, b.groups) && (a.inbound == nil || a.inbound.Form == b.inbound.Form && a.inbound.ID == b.inbound.ID)
		})
}

func (l *layout) addGlue(text []byte) {
	l.glue = append(l.glue, glue{sha256.Sum256(text), pack(text), len(text)})
}

func clientKind(service string) delta.Kind {
	if service == delta.MTProto {
		return delta.MTProtoClient
	}
	return delta.XrayClient
}

// hasMTProto reports whether there is a services.mtproto.
func (l *layout) hasMTProto() bool {
	return len(l.of.Inbounds) > 0 && l.of.Inbounds[len(l.of.Inbounds)-1].Service == delta.MTProto
}

// elements calls f for each element but clients of subscriptions, entries of clientMap and the revision.
func (l *layout) elements(f func(delta.Element)) {
	of := func(service string, member, inbound delta.Kind, members []nodeconfig.Member) {
		f(delta.Element{Kind: delta.Service, Key: service, Raw: []byte("{}")})
		f(delta.Element{Kind: member, Key: "inbounds", Raw: []byte("[]")})
		for _, m := range members {
			f(delta.Element{Kind: member, Key: m.Name, Raw: m.Raw})
		}
		for i := range l.of.Inbounds {
			in := &l.of.Inbounds[i]
			if in.Service != service {
				continue
			}
			f(delta.Element{Kind: inbound, Inbound: in.Tag, Raw: in.Raw})
			for _, fixed := range in.Fixed {
				f(delta.Element{Kind: clientKind(service), Inbound: in.Tag, Key: fixed.Key, Raw: fixed.Raw})
			}
		}
	}
	of(delta.Xray, delta.XrayMember, delta.XrayInbound, l.of.Xray)
	if l.hasMTProto() {
		of(delta.MTProto, delta.MTProtoMember, delta.MTProtoInbound, l.of.MTProto)
	}
}

// appendSize appends a number to what is hashed.
func appendSize(to []byte, n int) []byte { return binary.BigEndian.AppendUint64(to, uint64(n)) }
