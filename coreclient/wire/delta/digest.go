package delta

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"math/bits"
)

// Digest is the sum modulo 2^256 of the hashes of all elements of a document, big-endian. The zero
// value is that of no element. The order in which elements are added and taken away does not count.
type Digest [sha256.Size]byte

// Plus returns the digest with the hash of an element added.
func (d Digest) Plus(h Digest) Digest {
	var sum Digest
	var carry uint64
	for at := len(d) - 8; at >= 0; at -= 8 {
		var word uint64
		word, carry = bits.Add64(binary.BigEndian.Uint64(d[at:]), binary.BigEndian.Uint64(h[at:]), carry)
		binary.BigEndian.PutUint64(sum[at:], word)
	}
	return sum
}

// Minus returns the digest with the hash of an element taken away.
func (d Digest) Minus(h Digest) Digest {
	var rest Digest
	var borrow uint64
	for at := len(d) - 8; at >= 0; at -= 8 {
		var word uint64
		word, borrow = bits.Sub64(binary.BigEndian.Uint64(d[at:]), binary.BigEndian.Uint64(h[at:]), borrow)
		binary.BigEndian.PutUint64(rest[at:], word)
	}
	return rest
}

// String returns the digest as 64 hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes the digest as 64 hex digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads 64 hex digits.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("a digest has 64 hex digits")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// Hash is the hash of one element: SHA-256 over its kind, inbound and key, each behind its length in
// four bytes, big-endian, and then its bytes.
func (e Element) Hash() Digest { return NewHasher().Hash(e) }

// Hasher hashes elements and reuses its memory. It is for one goroutine.
type Hasher struct {
	sum    hash.Hash
	prefix []byte
}

// NewHasher returns a hasher.
func NewHasher() *Hasher { return &Hasher{sum: sha256.New()} }

// Hash is Element.Hash.
func (h *Hasher) Hash(e Element) (d Digest) {
	h.prefix = h.prefix[:0]
	for _, text := range [...]string{string(e.Kind), e.Inbound, e.Key} {
		h.prefix = binary.BigEndian.AppendUint32(h.prefix, uint32(len(text)))
		h.prefix = append(h.prefix, text...)
	}
	h.sum.Reset()
	_, _ = h.sum.Write(h.prefix) // a hash never fails
	_, _ = h.sum.Write(e.Raw)
	h.sum.Sum(d[:0])
	return d
}

// Of returns the digest of a document. The error is that of Walk.
func Of(document []byte) (d Digest, err error) {
	h := NewHasher()
	err = Walk(document, func(e Element) error {
		d = d.Plus(h.Hash(e))
		return nil
	})
	return d, err
}
