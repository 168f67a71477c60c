package delta

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrNoElements means that a document can't be taken apart, so that it has no deltas. It can be a
// configuration all the same.
var ErrNoElements = errors.New("the configuration can't be taken apart")

// Kind is what an element is.
type Kind string

// The kinds of elements.
const (
	// Member is a member of the document, but for clientMap and services. Key is its name.
	Member Kind = "member"
	// ClientMap is an entry of clientMap. Key is the client key.
	ClientMap Kind = "clientMap"
	// Service is a member of services. Key is its name. Of xray and mtproto, the bytes are {},
	// since their members are elements; another service is one element.
	Service Kind = "service"
	// XrayMember is a member of services.xray. Key is its name. Of inbounds, the bytes are [].
	XrayMember Kind = "xray.member"
	// XrayInbound is an inbound of services.xray with an empty list of clients. Inbound is its tag.
	XrayInbound Kind = "xray.inbound"
	// XrayClient is a client of an inbound: an element of settings.clients, or of settings.accounts
	// where there are no settings.clients, or of settings.peers where there are none of both. Key is
	// ClientKey.
	XrayClient Kind = "xray.client"
	// MTProtoMember, MTProtoInbound and MTProtoClient are the same of services.mtproto. The
	// clients of an inbound are its member clients.
	MTProtoMember  Kind = "mtproto.member"
	MTProtoInbound Kind = "mtproto.inbound"
	MTProtoClient  Kind = "mtproto.client"
)

// The names of the services that are taken apart.
const (
	Xray    = "xray"
	MTProto = "mtproto"
)

// Element is one part of a document. No two elements of a document have the same Kind, Inbound and
// Key.
type Element struct {
	Kind    Kind
	Inbound string // tag; empty for what belongs to no inbound
	Key     string // empty for an inbound
	Raw     []byte // JSON, as Core sent it
}

// kindsOf are the kinds of a service that is taken apart.
type kindsOf struct{ member, inbound, client Kind }

var services = map[string]kindsOf{
	Xray:    {XrayMember, XrayInbound, XrayClient},
	MTProto: {MTProtoMember, MTProtoInbound, MTProtoClient},
}

// Walk calls f for each element of a document, in the order of the document, but for an inbound,
// which comes before its clients. The bytes of clients and members share the document's memory. An
// error of f ends the walk and is returned as it is. Where the document can't be taken apart, the
// error is ErrNoElements, and f has been called for some elements already.
func Walk(document []byte, f func(Element) error) error {
	r := &reader{raw: document, decoder: newDecoder(document), f: f, keys: newKeyReader()}
	err := r.document()
	if err == nil || r.stopped {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoElements, err)
}

func newDecoder(raw []byte) *jsontext.Decoder { return jsontext.NewDecoder(bytes.NewBuffer(raw)) }

// reader reads a document in one pass.
type reader struct {
	raw     []byte
	decoder *jsontext.Decoder
	f       func(Element) error
	stopped bool // f returned an error
	keys    *keyReader
}

func (r *reader) say(e Element) error {
	err := r.f(e)
	r.stopped = err != nil
	return err
}

// value reads the next value and returns it as a part of the document's memory.
func (r *reader) value() ([]byte, error) {
	value, err := r.decoder.ReadValue()
	if err != nil {
		return nil, err
	}
	end := r.decoder.InputOffset()
	return r.raw[end-int64(len(value)) : end : end], nil
}

// open reads the token that begins an object or an array, and returns its offset.
func (r *reader) open(what string, kind jsontext.Kind) (start int, err error) {
	token, err := r.decoder.ReadToken()
	if err != nil {
		return 0, err
	}
	if token.Kind() != kind {
		return 0, fmt.Errorf("%s is %s, want %s", what, token.Kind(), kind)
	}
	return int(r.decoder.InputOffset()) - 1, nil
}

// shut reads the token that ends an object or an array, and returns the offset behind it.
func (r *reader) shut() (end int, err error) {
	_, err = r.decoder.ReadToken()
	return int(r.decoder.InputOffset()), err
}

// object reads an object, and calls member with each name, after which the value is next.
func (r *reader) object(what string, member func(name string) error) error {
	if _, err := r.open(what, '{'); err != nil {
		return err
	}
	for r.decoder.PeekKind() != '}' {
		name, err := r.decoder.ReadToken()
		if err != nil {
			return err
		}
		if err := member(name.String()); err != nil {
			return err
		}
	}
	_, err := r.shut()
	return err
}

func (r *reader) document() error {
	var revision, hasServices bool
	err := r.object("the configuration", func(name string) error {
		switch name {
		case "clientMap":
			return r.object(name, func(key string) error { return r.whole(ClientMap, key) })
		case "services":
			hasServices = true
			return r.object(name, r.service)
		case "revision":
			revision = true
			value, err := r.value()
			if err != nil {
				return err
			}
			if n, err := strconv.ParseInt(string(value), 10, 64); err != nil || strconv.FormatInt(n, 10) != string(value) {
				return errors.New("its revision is no integer")
			}
			return r.say(Element{Kind: Member, Key: name, Raw: value})
		}
		return r.whole(Member, name)
	})
	if err != nil {
		return err
	}
	if !revision || !hasServices {
		return errors.New("it has no revision or no services")
	}
	if _, err := r.decoder.ReadToken(); err == nil {
		return errors.New("there is more behind it")
	}
	return nil
}

// whole says the next value as one element.
func (r *reader) whole(kind Kind, key string) error {
	value, err := r.value()
	if err != nil {
		return err
	}
	return r.say(Element{Kind: kind, Key: key, Raw: value})
}

func (r *reader) service(name string) error {
	kinds, known := services[name]
	if !known || r.decoder.PeekKind() != '{' {
		return r.whole(Service, name)
	}
	if err := r.say(Element{Kind: Service, Key: name, Raw: []byte("{}")}); err != nil {
		return err
	}
	tags := map[string]bool{}
	return r.object(name, func(member string) error {
		if member != "inbounds" {
			return r.whole(kinds.member, member)
		}
		if err := r.say(Element{Kind: kinds.member, Key: member, Raw: []byte("[]")}); err != nil {
			return err
		}
		return r.array("the inbounds of "+name, func() error {
			in, err := r.inbound(name)
			if err != nil {
				return err
			}
			if in.tag == "" || tags[in.tag] {
				return fmt.Errorf("two inbounds have the tag %q, or one has none", in.tag)
			}
			tags[in.tag] = true
			return r.sayInbound(kinds, in)
		})
	})
}

// array calls each for each element of an array, which is next then.
func (r *reader) array(what string, each func() error) error {
	if _, err := r.open(what, '['); err != nil {
		return err
	}
	for r.decoder.PeekKind() != ']' {
		if err := each(); err != nil {
			return err
		}
	}
	_, err := r.shut()
	return err
}

func (r *reader) sayInbound(kinds kindsOf, in inbound) error {
	if err := r.say(Element{Kind: kinds.inbound, Inbound: in.tag, Raw: in.skeleton()}); err != nil {
		return err
	}
	keys := make(map[string]bool, len(in.list.clients))
	for _, raw := range in.list.clients {
		key, err := r.keys.key(raw)
		if err != nil {
			return fmt.Errorf("inbound %s: %w", in.tag, err)
		}
		if keys[key] {
			return fmt.Errorf("inbound %s: two clients have one key", in.tag)
		}
		keys[key] = true
		if err := r.say(Element{Kind: kinds.client, Inbound: in.tag, Key: key, Raw: raw}); err != nil {
			return err
		}
	}
	return nil
}

// ClientKey returns the key of a client: the first of email, id, password, auth, user and publicKey that
// is a string with text in it.
func ClientKey(client []byte) (string, error) { return newKeyReader().key(client) }

// keyMembers are the members that can be a client's key, the first one first.
var keyMembers = [...]string{"email", "id", "password", "auth", "user", "publicKey"}

// keyReader reads the keys of clients and reuses its memory.
type keyReader struct{ decoder *jsontext.Decoder }

func newKeyReader() *keyReader { return &keyReader{jsontext.NewDecoder(new(bytes.Buffer))} }

func (k *keyReader) key(client []byte) (string, error) {
	var found [len(keyMembers)]string
	k.decoder.Reset(bytes.NewBuffer(client))
	if token, err := k.decoder.ReadToken(); err != nil {
		return "", fmt.Errorf("read a client: %w", err)
	} else if token.Kind() != '{' {
		return "", errors.New("a client is no object")
	}
	for k.decoder.PeekKind() != '}' {
		name, err := k.decoder.ReadToken()
		if err != nil {
			return "", fmt.Errorf("read a client: %w", err)
		}
		at := -1
		for i, member := range keyMembers {
			if name.String() == member {
				at = i
			}
		}
		if at < 0 || k.decoder.PeekKind() != '"' {
			if err := k.decoder.SkipValue(); err != nil {
				return "", fmt.Errorf("read a client: %w", err)
			}
			continue
		}
		value, err := k.decoder.ReadToken()
		if err != nil {
			return "", fmt.Errorf("read a client: %w", err)
		}
		if found[at] = value.String(); at == 0 && found[0] != "" {
			return found[0], nil
		}
	}
	for _, key := range found {
		if key != "" {
			return key, nil
		}
	}
	return "", errors.New("a client has none of email, id, password, auth, user and publicKey")
}

// valid reports whether raw is one JSON value.
func valid(raw json.RawMessage) bool { return jsontext.Value(raw).IsValid() }
