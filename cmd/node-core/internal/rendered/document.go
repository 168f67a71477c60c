package rendered

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire/delta"
)

// Document is the configuration of a node as it is sent. It is never changed.
type Document struct {
	Revision int64
	ETag     string // with its quotes

	layout *layout // nil where nodeconfig.Build made the document
	now    *snapshot
	whole  []byte // the frame of such a document
	// grants are the node's own, by subscription; now has them too.
	grants map[int64]*corestore.Grant
}

// differs reports whether deltas can begin and end with the document.
func (d *Document) differs() bool { return d.layout != nil }

// part is a chunk in a list of a document.
type part struct {
	list  int
	chunk *chunk
	look  look
	first bool // the list has nothing before it
}

// partsOf returns the parts of a document in their order.
func partsOf(l *layout, now *snapshot) (parts []part) {
	for i := range l.lists {
		for _, group := range l.lists[i].groups {
			for _, c := range now.groups[group] {
				parts = append(parts, part{list: i, chunk: c, look: l.lists[i].lookIn(c)})
			}
		}
	}
	return parts
}

// parts returns those parts of the document that have a text, and sets first.
func (d *Document) parts() ([]part, error) {
	all := partsOf(d.layout, d.now)
	parts, last := all[:0], -1
	for _, p := range all {
		_, size, err := p.chunk.sum(p.look)
		if err != nil {
			return nil, err
		}
		if size == 0 { // no client of the chunk is one of the list
			continue
		}
		p.first = p.list != last && !d.layout.lists[p.list].begun
		last = p.list
		parts = append(parts, p)
	}
	return parts, nil
}

// compose puts a document together. What of it is not rendered yet is rendered on all processors.
func compose(revision int64, l *layout, now *snapshot) (*Document, error) {
	parts := partsOf(l, now)
	sums := make([][]byte, len(parts))
	if err := inParallel(len(parts), func(i int) error {
		sum, size, err := parts[i].chunk.sum(parts[i].look)
		sums[i] = appendSize(sum[:], size)
		return err
	}); err != nil {
		return nil, err
	}
	hash := sha256.New()
	head := sha256.Sum256(before(revision))
	_, _ = hash.Write(head[:]) // a hash never fails
	at := 0
	for i := range l.lists {
		for ; at < len(parts) && parts[at].list == i; at++ {
			_, _ = hash.Write(sums[at])
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
	parts, err := d.parts()
	if err != nil {
		return err
	}
	at := 0
	for i := range d.layout.lists {
		for ; at < len(parts) && parts[at].list == i; at++ {
			frame, err := parts[at].chunk.packed(parts[at].look, parts[at].first)
			if err != nil {
				return err
			}
			if err := f(frame); err != nil {
				return err
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
	if d.layout != nil { // each piece keeps its frame
		parts, err := d.parts()
		if err != nil {
			return nil, err
		}
		if err := inParallel(len(parts), func(i int) error {
			_, err := parts[i].chunk.packed(parts[i].look, parts[i].first)
			return err
		}); err != nil {
			return nil, err
		}
	}
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
	type alike struct {
		chunk *chunk
		look  look
	}
	at, all, places := map[alike]int{}, []alike(nil), [][]placed(nil)
	for _, p := range partsOf(d.layout, d.now) {
		key := alike{p.chunk, p.look}
		i, has := at[key]
		if !has {
			i = len(all)
			at[key], all, places = i, append(all, key), append(places, nil)
		}
		places[i] = append(places[i], d.layout.lists[p.list].placed)
	}
	sums := make([]delta.Digest, len(all))
	err = inParallel(len(all), func(i int) (err error) {
		sums[i], err = all[i].chunk.digest(all[i].look, places[i])
		return err
	})
	sum = d.layout.fixed.Plus(revisionHash(d.Revision))
	for _, part := range sums {
		sum = sum.Plus(part)
	}
	return sum, err
}

// inParallel calls f with each number below n, on as many goroutines as there are processors. It
// returns an error of one of the calls.
func inParallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var work errgroup.Group
	for range min(n, runtime.GOMAXPROCS(0)) {
		work.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return work.Wait()
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
