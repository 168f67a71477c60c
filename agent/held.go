package agent

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nodeagent/coreclient/wire/delta"
)

// held is the document that the node holds, as the hashes of its elements: enough to tell what
// digest it has after a delta. It is made of the document when the first delta comes, and kept up
// by those that are applied.
type held struct {
	etag     string
	revision int64
	digest   delta.Digest
	ids      *identifier
	hashes   hashTable
	entries  int // of clientMap
	clients  map[clientList]int
	// document is of the stored configuration, as it is packed, that the hashes in a file were made of with
	// the changes since. It is zero where they are in no file.
	document [sha256.Size]byte
}

// clientList names the list of clients of one inbound.
type clientList struct {
	kind delta.Kind // XrayClient or MTProtoClient
	tag  string
}

// clientKinds are the kinds of the clients of the services.
var clientKinds = map[string]delta.Kind{delta.Xray: delta.XrayClient, delta.MTProto: delta.MTProtoClient}

// elementID stands for the place of an element. It is a hash, because the places of 200,000
// elements would take more memory than all else of them.
type elementID uint64

// identifier makes the ids of elements. Core's users choose keys: without the seed nobody can find two with
// one id. It is for one goroutine.
type identifier struct {
	seed [16]byte
	text []byte
}

func newIdentifier() *identifier {
	i := &identifier{}
	_, _ = rand.Read(i.seed[:]) // it never fails
	return i
}

func (i *identifier) of(e delta.Element) elementID {
	i.text = append(i.text[:0], i.seed[:]...)
	for _, part := range [...]string{string(e.Kind), e.Inbound} {
		i.text = append(binary.AppendUvarint(i.text, uint64(len(part))), part...)
	}
	i.text = append(i.text, e.Key...)
	sum := sha256.Sum256(i.text)
	return elementID(binary.BigEndian.Uint64(sum[:]))
}

var errNoDeltas = errors.New("the document that the node holds has no deltas")

// aliases are the members that readConfig reads in upper and lower case, and package delta in one.
var aliases = []string{"revision", "clientMap", "services"}

// newHeld takes a document apart. The error tells that it has no deltas.
func newHeld(document []byte, etag string) (*held, error) {
	h := &held{etag: etag, ids: newIdentifier(), clients: map[clientList]int{}}
	hasher := delta.NewHasher()
	var records []hashRecord
	err := delta.Walk(document, func(e delta.Element) (err error) {
		switch e.Kind {
		case delta.Member:
			for _, name := range aliases {
				if strings.EqualFold(e.Key, name) && e.Key != name {
					return fmt.Errorf("%w: it has the member %s", errNoDeltas, name)
				}
			}
			if e.Key == "revision" {
				h.revision, err = strconv.ParseInt(string(e.Raw), 10, 64)
			}
		case delta.ClientMap:
			h.entries++
		case delta.XrayClient, delta.MTProtoClient:
			h.clients[clientList{e.Kind, e.Inbound}]++
		case delta.Service, delta.XrayMember, delta.XrayInbound, delta.MTProtoMember, delta.MTProtoInbound:
		}
		hash := hasher.Hash(e)
		records = append(records, newRecord(h.ids.of(e), hash))
		h.digest = h.digest.Plus(hash)
		return err
	})
	if err != nil {
		return nil, err
	}
	var twice bool
	if h.hashes, twice = newHashTable(slices.Clip(slices.Clone(records))); twice { // two places with one hash, once in a billion documents
		return nil, fmt.Errorf("%w: two elements have one id", errNoDeltas)
	}
	return h, nil
}

// step is what a delta changes in held. It changes nothing before it is done.
type step struct {
	held    *held
	hasher  *delta.Hasher
	digest  delta.Digest
	set     map[elementID]delta.Digest
	gone    map[elementID]bool
	entries int
	clients map[clientList]int // the difference
}

// after returns what a delta of clients and of clientMap makes of the document. The error is a
// delta.ErrMismatch where the delta does not lead to the digest that it names.
func (h *held) after(d *delta.Delta) (*step, error) {
	s := &step{held: h, hasher: delta.NewHasher(), digest: h.digest, set: map[elementID]delta.Digest{}, gone: map[elementID]bool{}, entries: h.entries, clients: map[clientList]int{}}
	number := func(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
	revision := delta.Element{Kind: delta.Member, Key: "revision"}
	revision.Raw = number(d.Revision)
	err := s.put(revision, true)
	if err == nil {
		err = s.apply(delta.Element{Kind: delta.ClientMap}, d.ClientMap, &s.entries)
	}
	for name, service := range d.Services {
		for _, in := range service.Inbounds {
			if err == nil {
				err = s.applyClients(clientList{clientKinds[name], in.Tag}, in.Clients)
			}
		}
	}
	if err == nil {
		err = h.hashes.err
	}
	if err == nil && s.digest != d.Digest {
		err = fmt.Errorf("the digest of the result is %s, want %s", s.digest, d.Digest)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", delta.ErrMismatch, err)
	}
	return s, nil
}

// keyed returns the clients of an inbound by their keys.
func keyed(c delta.Clients) (m delta.Map, err error) {
	m.Removed = c.Removed
	if m.Added, err = byKey(c.Added); err == nil {
		m.Changed, err = byKey(c.Changed)
	}
	return m, err
}

func byKey(clients []json.RawMessage) (map[string]json.RawMessage, error) {
	all := make(map[string]json.RawMessage, len(clients))
	for _, raw := range clients {
		key, err := delta.ClientKey(raw)
		if err != nil {
			return nil, err
		}
		if _, twice := all[key]; twice {
			return nil, errors.New("two clients have one key")
		}
		all[key] = raw
	}
	return all, nil
}

// apply applies the difference m to elements of one kind and one inbound, which like names. It adds to
// count how many more elements there are.
func (s *step) apply(like delta.Element, m delta.Map, count *int) error {
	for _, key := range m.Removed {
		like.Key = key
		if err := s.remove(like); err != nil {
			return err
		}
	}
	*count += len(m.Added) - len(m.Removed)
	for _, part := range []struct {
		elements map[string]json.RawMessage
		is       bool
	}{{m.Added, false}, {m.Changed, true}} {
		for key, raw := range part.elements {
			like.Key, like.Raw = key, raw
			if err := s.put(like, part.is); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyClients applies the difference of one list of clients.
func (s *step) applyClients(of clientList, clients delta.Clients) error {
	m, err := keyed(clients)
	if err != nil {
		return err
	}
	n := 0
	err = s.apply(delta.Element{Kind: of.kind, Inbound: of.tag}, m, &n)
	s.clients[of] += n
	return err
}

// hash returns the hash of an element as it is before the delta.
func (s *step) hash(id elementID) (hash delta.Digest, is bool) {
	return s.held.hashes.find(id)
}

func (s *step) touch(id elementID) error {
	if _, set := s.set[id]; set || s.gone[id] {
		return errors.New("one element is changed twice")
	}
	return nil
}

func (s *step) remove(e delta.Element) error {
	id := s.held.ids.of(e)
	hash, is := s.hash(id)
	if !is {
		return errors.New("an element is removed and is not there")
	}
	if err := s.touch(id); err != nil {
		return err
	}
	s.gone[id] = true
	s.digest = s.digest.Minus(hash)
	return nil
}

// put sets an element. is tells whether it is to be there before.
func (s *step) put(e delta.Element, is bool) error {
	id := s.held.ids.of(e)
	before, was := s.hash(id)
	if was != is {
		return errors.New("an element is added and is there, or changed and is not there")
	}
	if err := s.touch(id); err != nil {
		return err
	}
	if was {
		s.digest = s.digest.Minus(before)
	}
	hash := s.hasher.Hash(e)
	s.set[id] = hash
	s.digest = s.digest.Plus(hash)
	return nil
}

// done makes the step's result the document that is held.
func (s *step) done(d *delta.Delta) {
	h := s.held
	h.etag, h.revision, h.digest, h.entries = d.ETag, d.Revision, s.digest, s.entries
	for id := range s.gone {
		h.hashes.remove(id)
	}
	for id, hash := range s.set {
		h.hashes.set(id, hash)
	}
	for of, n := range s.clients {
		h.clients[of] += n
	}
}
