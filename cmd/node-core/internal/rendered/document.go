package rendered

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"nodeagent/coreclient/wire/delta"
)

// Document is the configuration of a node as it is sent. It is never changed.
type Document struct {
	Revision int64
	ETag     string // with its quotes

	layout *layout // nil where nodeconfig.Build made the document
	now    *snapshot
	whole  []byte // the frame of such a document
	// granted says that the document has grants, which are the node's own: no delta begins or ends
	// with it.
	granted bool
}

// shared reports whether the document has nothing but what the layout and the roster say.
func (d *Document) shared() bool { return d.layout != nil && !d.granted }

// compose puts a document together.
func compose(revision int64, l *layout, now *snapshot) (*Document, error) {
	hash := sha256.New()
	head := sha256.Sum256(before(revision))
	_, _ = hash.Write(head[:]) // a hash never fails
	for i := range l.lists {
		for _, group := range l.lists[i].groups {
			for _, c := range now.groups[group] {
				sum, size, err := c.sum(l.lists[i].lookIn(c))
				if err != nil {
					return nil, err
				}
				_, _ = hash.Write(appendSize(sum[:], size))
			}
		}
		_, _ = hash.Write(appendSize(l.glue[i].sum[:], l.glue[i].size))
	}
	return &Document{Revision: revision, ETag: etagOf(hash.Sum(nil)), layout: l, now: now}, nil
}

func etagOf(sum []byte) string { return `"` + hex.EncodeToString(sum[:12]) + `"` }

// built is a document that nodeconfig.Build made.
func built(revision int64, body []byte) *Document {
	sum := sha256.Sum256(body)
	return &Document{Revision: revision, ETag: etagOf(sum[:]), whole: pack(body)}
}

// frames calls f for each frame of zstd that the document consists of.
func (d *Document) frames(f func(frame []byte) error) error {
	if d.layout == nil {
		return f(d.whole)
	}
	if err := f(pack(before(d.Revision))); err != nil {
		return err
	}
	for i := range d.layout.lists {
		first := true
		for _, group := range d.layout.lists[i].groups {
			for _, c := range d.now.groups[group] {
				if !first {
					if err := f(comma()); err != nil {
						return err
					}
				}
				first = false
				frame, err := c.packed(d.layout.lists[i].lookIn(c))
				if err != nil {
					return err
				}
				if err := f(frame); err != nil {
					return err
				}
			}
		}
		if err := f(d.layout.glue[i].packed); err != nil {
			return err
		}
	}
	return nil
}

// Packed returns the document compressed with zstd: several frames.
func (d *Document) Packed() (frames [][]byte, err error) {
	err = d.frames(func(frame []byte) error {
		frames = append(frames, frame)
		return nil
	})
	return frames, err
}

// WriteJSON writes the document's JSON, piece by piece. It returns no error of w, which means only
// that nobody reads it.
func (d *Document) WriteJSON(w io.Writer) error {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer decoder.Close()
	var gone error
	err = d.frames(func(frame []byte) error {
		if err := decoder.Reset(bytes.NewReader(frame)); err != nil {
			return err
		}
		_, gone = decoder.WriteTo(w)
		return gone
	})
	if gone != nil {
		return nil
	}
	return err
}

// digest is the digest of the document; package delta says what that is.
func (d *Document) digest() (sum delta.Digest, err error) {
	sum = d.layout.fixed.Plus(revisionHash(d.Revision))
	for i := range d.layout.lists {
		l := &d.layout.lists[i]
		for _, group := range l.groups {
			for _, c := range d.now.groups[group] {
				part, err := c.digest(l.lookIn(c), l.placed)
				if err != nil {
					return sum, err
				}
				sum = sum.Plus(part)
			}
		}
	}
	return sum, nil
}

func revisionHash(revision int64) delta.Digest {
	return delta.Element{Kind: delta.Member, Key: "revision", Raw: strconv.AppendInt(nil, revision, 10)}.Hash()
}

// clients is how many clients the document's clientMap has.
func (d *Document) clients() (n int) {
	for _, group := range d.layout.lists[0].groups {
		for _, c := range d.now.groups[group] {
			n += len(c.clients)
		}
	}
	return n
}
