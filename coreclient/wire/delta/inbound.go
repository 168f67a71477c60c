package delta

import (
	"errors"
	"fmt"
	"slices"
)

// inbound is an inbound as it stands in a document.
type inbound struct {
	tag  string
	raw  []byte
	list list // its offsets are those of raw
}

// list is an array of clients.
type list struct {
	has        bool // the member is an array
	start, end int  // offsets of the array
	clients    [][]byte
}

// skeleton is the inbound with an empty list of clients.
func (in inbound) skeleton() []byte {
	if !in.list.has {
		return in.raw
	}
	raw := make([]byte, 0, in.list.start+len("[]")+len(in.raw)-in.list.end)
	raw = append(raw, in.raw[:in.list.start]...)
	raw = append(raw, "[]"...)
	return append(raw, in.raw[in.list.end:]...)
}

// inbound reads the next value, an inbound of the service.
func (r *reader) inbound(service string) (in inbound, err error) {
	start, err := r.open("an inbound", '{')
	if err != nil {
		return in, err
	}
	for r.decoder.PeekKind() != '}' {
		name, err := r.decoder.ReadToken()
		if err != nil {
			return in, err
		}
		switch member := name.String(); {
		case member == "tag":
			in.tag, err = r.text()
		case member == "clients" && service == MTProto:
			in.list, err = r.list()
		case member == "settings" && service == Xray && r.decoder.PeekKind() == '{':
			in.list, err = r.settings()
		default:
			err = r.decoder.SkipValue()
		}
		if err != nil {
			return in, fmt.Errorf("inbound %q: %w", in.tag, err)
		}
	}
	end, err := r.shut()
	if err != nil {
		return in, err
	}
	in.raw = r.raw[start:end:end]
	in.list.start, in.list.end = in.list.start-start, in.list.end-start
	return in, nil
}

// listMembers are the members of an Xray inbound's settings that can be its list of clients, the first one
// first.
var listMembers = [...]string{"clients", "accounts", "peers"}

// settings reads the list of clients in the settings of an Xray inbound.
func (r *reader) settings() (found list, err error) {
	var lists [len(listMembers)]list
	err = r.object("settings", func(name string) (err error) {
		at := slices.Index(listMembers[:], name)
		if at < 0 {
			return r.decoder.SkipValue()
		}
		lists[at], err = r.list()
		return err
	})
	for _, l := range lists {
		if l.has {
			return l, err
		}
	}
	return list{}, err
}

// text reads the next value, which is a string.
func (r *reader) text() (string, error) {
	token, err := r.decoder.ReadToken()
	if err == nil && token.Kind() != '"' {
		err = errors.New("its tag is no text")
	}
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// list reads the next value as a list of clients, if it is an array.
func (r *reader) list() (l list, err error) {
	if r.decoder.PeekKind() != '[' {
		return l, r.decoder.SkipValue()
	}
	l.has = true
	if l.start, err = r.open("clients", '['); err != nil {
		return l, err
	}
	for r.decoder.PeekKind() != ']' {
		client, err := r.value()
		if err != nil {
			return l, err
		}
		l.clients = append(l.clients, client)
	}
	l.end, err = r.shut()
	return l, err
}

// Bare reads an inbound with an empty list of clients, as a delta has it. where is the offset of the list in raw; 0
// for an inbound without a list.
func Bare(service string, raw []byte) (tag string, where int, err error) {
	r := &reader{raw: raw, decoder: newDecoder(raw)}
	in, err := r.inbound(service)
	switch {
	case err != nil:
		return "", 0, err
	case len(in.raw) != len(raw), len(in.list.clients) > 0, string(in.skeleton()) != string(raw):
		return "", 0, fmt.Errorf("inbound %q has clients, or white space around it", in.tag)
	case in.list.has:
		return in.tag, in.list.start, nil
	}
	return in.tag, 0, nil
}

// Strip takes an inbound apart: the inbound with an empty list of clients, and the clients.
func Strip(service string, raw []byte) (bare []byte, clients [][]byte, err error) {
	r := &reader{raw: raw, decoder: newDecoder(raw)}
	in, err := r.inbound(service)
	if err != nil {
		return nil, nil, err
	}
	return in.skeleton(), in.list.clients, nil
}
