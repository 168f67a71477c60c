package rendered

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreclient/wire/delta"
)

// chunk is a run of the clients of one group, and how they look in documents.
type chunk struct {
	clients []*corestore.Client
	// bound says that one of them has a credential for a single inbound: pieces are for one inbound
	// then.
	bound bool

	mu     sync.Mutex // held while a piece is made, so that it is made once
	pieces map[look]*piece
}

// look is how clients look in one list. The zero Form is that of clientMap.
type look struct {
	form    nodeconfig.Form
	inbound int64 // 0 where the clients look alike in all lists of the form
}

// piece is a chunk as it stands in a list, with commas between the clients.
type piece struct {
	sum  [sha256.Size]byte // of the text
	size int               // of the text, in bytes
	// packed are frames of zstd: of the text, as the first piece of a list, and of a comma and the
	// text. They are nil until they are sent.
	packed [2][]byte
	// digests has the sum of the elements for some tags of inbounds.
	digests map[placed]delta.Digest
}

// placed is what else than the text is hashed for an element.
type placed struct {
	kind delta.Kind
	tag  string
}

// maxDigests bounds for how many tags a piece keeps its digest. Nodes of one template have the same
// tags.
const maxDigests = 8

func newChunk(clients []*corestore.Client) *chunk {
	c := &chunk{clients: clients, pieces: map[look]*piece{}}
	c.bound = slices.ContainsFunc(clients, func(client *corestore.Client) bool {
		return slices.ContainsFunc(client.Credentials, func(own corestore.Credential) bool { return own.ProtocolID != 0 })
	})
	return c
}

// lookOf is how the chunk's clients look in the list of an inbound.
func (c *chunk) lookOf(in *nodeconfig.Inbound) look {
	if c.bound {
		return look{in.Form, in.ID}
	}
	return look{in.Form, 0}
}

// appendClient appends a client as it stands in a list, or its entry in clientMap with its name. The value
// is empty, and nothing is appended, where the client is none of the list.
func (l look) appendClient(to []byte, c *corestore.Client) (text []byte, value []byte, err error) {
	sub := c.Subscription()
	start := len(to)
	if l.form != (nodeconfig.Form{}) {
		to, err = l.form.Append(to, l.inbound, sub)
		return to, to[start:], err
	}
	name, err := json.Marshal(c.UUID)
	if err != nil {
		return to, nil, err
	}
	to = append(append(to, name...), ':')
	start = len(to)
	to = nodeconfig.AppendEntry(to, sub)
	return to, to[start:], nil
}

// text returns the piece's text.
func (c *chunk) text(l look) (text []byte, err error) {
	text = make([]byte, 0, 160*len(c.clients))
	for _, client := range c.clients {
		end, value := len(text), []byte(nil)
		if end > 0 {
			text = append(text, ',')
		}
		if text, value, err = l.appendClient(text, client); err != nil {
			return nil, err
		}
		if len(value) == 0 {
			text = text[:end]
		}
	}
	return text, nil
}

// pieceLocked returns the piece of a look, and its text where that was made for it.
func (c *chunk) pieceLocked(l look) (p *piece, text []byte, err error) {
	if p = c.pieces[l]; p != nil {
		return p, nil, nil
	}
	if text, err = c.text(l); err != nil {
		return nil, nil, err
	}
	p = &piece{sum: sha256.Sum256(text), size: len(text)}
	c.pieces[l] = p
	return p, text, nil
}

// sum returns the hash and the size of the piece's text.
func (c *chunk) sum(l look) (sum [sha256.Size]byte, size int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, _, err := c.pieceLocked(l)
	if err != nil {
		return sum, 0, err
	}
	return p.sum, p.size, nil
}

// packed returns the piece's text as a frame of zstd. The text of any piece but the first one of a list
// has a comma before it.
func (c *chunk) packed(l look, first bool) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, text, err := c.pieceLocked(l)
	if err != nil {
		return nil, err
	}
	variant := 1
	if first {
		variant = 0
	}
	if p.packed[variant] != nil {
		return p.packed[variant], nil
	}
	if text == nil {
		if text, err = c.text(l); err != nil {
			return nil, err
		}
	}
	if !first {
		text = slices.Insert(text, 0, ',')
	}
	p.packed[variant] = pack(text)
	return p.packed[variant], nil
}

// digest returns the sum of the hashes of the chunk's elements in lists that have the same look. Each
// client is encoded once for all of the lists.
func (c *chunk) digest(l look, places []placed) (sum delta.Digest, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, _, err := c.pieceLocked(l)
	if err != nil {
		return sum, err
	}
	var missing []placed
	for _, at := range places {
		if known, has := p.digests[at]; has {
			sum = sum.Plus(known)
		} else {
			missing = append(missing, at)
		}
	}
	if len(missing) == 0 {
		return sum, nil
	}
	hasher, sums := delta.NewHasher(), make([]delta.Digest, len(missing))
	var text, value []byte
	for _, client := range c.clients {
		if text, value, err = l.appendClient(text[:0], client); err != nil {
			return sum, err
		}
		if len(value) == 0 {
			continue
		}
		for i, at := range missing {
			h, err := hashOf(hasher, at, client, value)
			if err != nil {
				return sum, err
			}
			sums[i] = sums[i].Plus(h)
		}
	}
	if p.digests == nil {
		p.digests = map[placed]delta.Digest{}
	}
	for i, at := range missing {
		sum = sum.Plus(sums[i])
		if len(p.digests) < maxDigests {
			p.digests[at] = sums[i]
		}
	}
	return sum, nil
}

// hashOf hashes one element.
func hashOf(hasher *delta.Hasher, at placed, client *corestore.Client, value []byte) (delta.Digest, error) {
	key, err := keyOf(at, client, value)
	if err != nil {
		return delta.Digest{}, err
	}
	return hasher.Hash(delta.Element{Kind: at.kind, Inbound: at.tag, Key: key, Raw: value}), nil
}

// keyedBy is of which kind a client is that begins with a member: one of Xray's has its email first,
// and one of MTProto has no email.
var keyedBy = map[string]delta.Kind{`{"email":"`: delta.XrayClient, `{"id":"`: delta.MTProtoClient}

// keyOf is the key of an element.
func keyOf(at placed, client *corestore.Client, value []byte) (string, error) {
	if at.kind == delta.ClientMap {
		return client.UUID, nil
	}
	// As nearly always, the UUID is the first member and needs no escapes.
	for _, member := range [...]string{`{"email":"`, `{"id":"`} {
		if rest, is := bytes.CutPrefix(value, []byte(member)); is && at.kind == keyedBy[member] && bytes.HasPrefix(rest, []byte(client.UUID+`"`)) && client.UUID != "" {
			return client.UUID, nil
		}
	}
	key, err := delta.ClientKey(value)
	if err != nil {
		return "", fmt.Errorf("subscription %d: %w", client.ID, err)
	}
	return key, nil
}

// zstdWindow bounds how far a frame refers back, and with it the tables of an encoder.
const zstdWindow = 1 << 20

// encoders keeps encoders for the next frame. Texts of clients are mostly random: the fastest level
// makes them as small as the next one and takes two thirds of its time.
var encoders = sync.Pool{New: func() any {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(zstdWindow), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return encoder
}}

// Pack compresses a text that is no part of a document, as packed is.
func Pack(text []byte) []byte { return pack(text) }

// pack compresses a text to a frame of zstd.
func pack(text []byte) []byte {
	encoder := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(encoder)
	return slices.Clip(encoder.EncodeAll(text, nil))
}
