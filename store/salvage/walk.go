package salvage

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// maxDepth bounds the depth of a tree of pages. bbolt's have four levels where there are millions
// of values.
const maxDepth = 32

// walker reads the pages of one file.
type walker struct {
	file    io.ReaderAt
	memory  Bytes // the file, where that is in memory
	meta    meta
	have    uint64 // pages of the file
	visitor Visitor
	report  Report

	seen     set // pages that were reached
	free     set // pages that the freelist names
	freeGood bool

	elements []element // memory for those of a leaf page
}

// tree is a bucket whose pages are being read.
type tree struct {
	name []byte // nil for the root bucket, and for pages without a bucket
	root bool
	last []byte // the key that was read last
}

func (w *walker) walk() error {
	w.readFreelist()
	if err := w.page(w.meta.root, &tree{root: true}, nil, nil, 0); err != nil {
		return err
	}
	if w.report.Sound() || !w.freeGood {
		return nil
	}
	return w.orphans()
}

// readFreelist reads which pages are free.
func (w *walker) readFreelist() {
	if w.meta.freelist == noFreelist {
		w.report.add("the list of free pages is missing")
		return
	}
	p, err := w.read(w.meta.freelist, true)
	if err != nil {
		w.report.add("list of free pages: %v", err)
		return
	}
	for i := range p.overflow + 1 {
		w.seen.add(p.id + i)
	}
	ids, ok := p.freelist(w.meta.next)
	if !ok {
		w.report.add("the list of free pages names pages that there are not")
		return
	}
	for _, id := range ids {
		w.free.add(id)
	}
	w.freeGood = true
}

// maxOverflow bounds how many bytes of one page are read. The largest value is a configuration,
// compressed.
const maxOverflow = 256 << 20

// read reads a page with its overflow.
func (w *walker) read(id uint64, freelist bool) (page, error) {
	if id < 2 || id >= w.meta.next || id >= w.have {
		return page{}, fmt.Errorf("page %d is not in the file", id)
	}
	size := w.meta.pageSize
	data, err := w.part(id*size, size)
	if err != nil {
		return page{}, fmt.Errorf("page %d can't be read: %w", id, err)
	}
	p := decodeHeader(data)
	switch {
	case p.id != id:
		return p, fmt.Errorf("page %d says that it is page %d", id, p.id)
	case freelist != (p.kind == freelistPage), !freelist && p.kind != branchPage && p.kind != leafPage:
		return p, fmt.Errorf("page %d has the type %#x", id, p.kind)
	case p.overflow >= min(w.have, w.meta.next)-id, p.overflow*size > maxOverflow:
		return p, fmt.Errorf("page %d goes on for %d pages, which are not in the file", id, p.overflow)
	}
	if p.overflow > 0 {
		if p.data, err = w.part(id*size, (p.overflow+1)*size); err != nil {
			p.data = data
			return p, fmt.Errorf("the pages after page %d can't be read: %w", id, err)
		}
	}
	return p, nil
}

// part returns a part of the file, which nothing changes.
func (w *walker) part(at, size uint64) ([]byte, error) {
	if memory := uint64(len(w.memory)); at < memory && size <= memory-at {
		return w.memory[at : at+size : at+size], nil
	}
	data := make([]byte, size)
	_, err := w.file.ReadAt(data, int64(at))
	return data, err
}

// page reads a page of a bucket, and the pages below it. Its keys should be from on and below to;
// nil stands for no bound.
func (w *walker) page(id uint64, t *tree, from, to []byte, depth int) error {
	switch {
	case depth > maxDepth:
		w.lose("page %d lies too deep", id)
		return nil
	case w.seen.has(id):
		w.lose("page %d is reached twice", id)
		return nil
	case w.free.has(id):
		w.lose("page %d is in use, and in the list of free pages", id)
		return nil
	}
	p, err := w.read(id, false)
	if err != nil {
		w.lose("%v", err)
		return nil
	}
	w.mark(p)
	if p.kind == leafPage {
		return w.leaf(p, t, from, to)
	}
	elements, lost, bad := p.elements(nil)
	w.report.LostPages += lost
	w.faults(id, bad)
	if len(elements) == 0 {
		w.report.add("page %d is a branch without pages below it", id)
	}
	for i, e := range elements {
		below := to
		if i+1 < len(elements) {
			below = elements[i+1].key
		}
		if out(e.key, from, to) || below != nil && bytes.Compare(e.key, below) >= 0 {
			w.report.add("page %d: the keys of its elements do not ascend", id)
		}
		if err := w.page(e.child, t, e.key, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// lose notes a page that cannot be read.
func (w *walker) lose(format string, args ...any) {
	w.report.LostPages++
	w.report.add(format, args...)
}

func (w *walker) faults(id uint64, bad []string) {
	for _, text := range bad {
		w.report.add("page %d: %s", id, text)
	}
}

// mark notes that a page was reached.
func (w *walker) mark(p page) {
	for i := range p.overflow + 1 {
		if i > 0 && (w.seen.has(p.id+i) || w.free.has(p.id+i)) {
			w.report.add("page %d goes on in page %d, which is free or another one", p.id, p.id+i)
			return
		}
		w.seen.add(p.id + i)
	}
}

func out(key, from, to []byte) bool {
	return from != nil && bytes.Compare(key, from) < 0 || to != nil && bytes.Compare(key, to) >= 0
}

// leaf gives the visitor the values of a leaf page, or reads the buckets in it.
func (w *walker) leaf(p page, t *tree, from, to []byte) error {
	memory := w.elements
	if t.root { // other leaf pages are read meanwhile
		memory = nil
	}
	elements, lost, bad := p.elements(memory)
	if !t.root {
		w.elements = elements
	}
	w.report.LostValues += lost
	w.faults(p.id, bad)
	for _, e := range elements {
		if out(e.key, from, to) || t.last != nil && bytes.Compare(e.key, t.last) <= 0 {
			w.report.add("page %d: its keys do not ascend, or belong elsewhere", p.id)
		}
		t.last = e.key // of the page's own memory, which nothing changes
		if err := w.value(p.id, t, e); err != nil {
			return err
		}
	}
	return nil
}

// value handles one element of a leaf page. All buckets are in the root bucket, and nothing else.
func (w *walker) value(id uint64, t *tree, e element) error {
	isBucket := e.flags == bucketFlag
	if e.flags > bucketFlag || isBucket != t.root {
		w.report.add("page %d: an element has the flags %#x", id, e.flags)
	}
	if t.root {
		return w.bucket(id, e)
	}
	if w.visitor.Value == nil {
		return nil
	}
	return w.visitor.Value(t.name, e.key, e.value)
}

// bucket reads a bucket of the root.
func (w *walker) bucket(id uint64, e element) error {
	if len(e.value) < bucketHeader {
		w.lose("page %d: a bucket has %d bytes", id, len(e.value))
		return nil
	}
	root, sequence := order.Uint64(e.value), order.Uint64(e.value[8:])
	if w.visitor.Bucket != nil {
		if err := w.visitor.Bucket(e.key, sequence); err != nil {
			return err
		}
	}
	t := &tree{name: slices.Clone(e.key)}
	if root != 0 {
		return w.page(root, t, nil, nil, 0)
	}
	inline := e.value[bucketHeader:]
	if len(inline) < headerSize {
		w.lose("page %d: a bucket inside the page has %d bytes", id, len(inline))
		return nil
	}
	p := decodeHeader(inline)
	if p.kind != leafPage || p.overflow != 0 {
		w.report.add("page %d: a bucket inside the page has the type %#x", id, p.kind)
		p.kind, p.overflow = leafPage, 0
	}
	p.id = id
	return w.leaf(p, t, nil, nil)
}

// orphans reads the pages that are in use and that nothing leads to: a branch page or a bucket
// above them is damaged.
func (w *walker) orphans() error {
	bound := min(w.have, w.meta.next)
	for id := uint64(2); id < bound; id++ {
		if w.seen.has(id) || w.free.has(id) {
			continue
		}
		p, err := w.read(id, false)
		if err != nil {
			continue // it was noted as lost where it was missed, or is the overflow of such a page
		}
		w.mark(p)
		if p.kind != leafPage {
			continue // the pages below it are found by themselves
		}
		if err := w.orphan(p); err != nil {
			return err
		}
	}
	return nil
}

// orphan gives the visitor the values of a leaf page that no bucket leads to. A page of the root
// bucket has buckets.
func (w *walker) orphan(p page) error {
	elements, lost, _ := p.elements(nil)
	w.report.LostValues += lost
	for _, e := range elements {
		t := &tree{}
		if e.flags == bucketFlag {
			t.root = true
		}
		if err := w.value(p.id, t, e); err != nil {
			return err
		}
	}
	return nil
}
