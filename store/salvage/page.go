package salvage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

const (
	headerSize  = 16
	elementSize = 16 // of a branch page and of a leaf page
	metaSize    = 64 // without the page header

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	bucketFlag   = 0x01 // of an element of a leaf page: its value is a bucket
	bucketHeader = 16   // bytes of a bucket before its inline page

	magic      = 0xED0CDAED
	version    = 2
	noFreelist = ^uint64(0)

	maxKeySize    = 32768 // bbolt.MaxKeySize
	minPageSize   = 1024
	maxPageSize   = 1 << 16
	freelistCount = 0xFFFF // from that count on, the first element has the count
)

var order = binary.NativeEndian

// ErrNoMeta means that both meta pages are damaged: where the buckets are is not known.
var ErrNoMeta = errors.New("both of its meta pages are damaged")

// meta is what a meta page says.
type meta struct {
	pageSize             uint64
	root, freelist, next uint64 // next is the number of pages
	txid                 uint64
}

// decodeMeta decodes the meta of the page with a number; false where it is not one.
func decodeMeta(page []byte, number uint64) (meta, bool) {
	header, raw := decodeHeader(page), page[headerSize:]
	sum := fnv.New64a()
	_, _ = sum.Write(raw[:metaSize-8])
	m := meta{
		pageSize: uint64(order.Uint32(raw[8:])), root: order.Uint64(raw[16:]),
		freelist: order.Uint64(raw[32:]), next: order.Uint64(raw[40:]), txid: order.Uint64(raw[48:]),
	}
	good := header.id == number && header.kind == metaPage && order.Uint32(raw) == magic && order.Uint32(raw[4:]) == version && order.Uint64(raw[56:]) == sum.Sum64() &&
		m.pageSize >= minPageSize && m.pageSize <= maxPageSize && m.pageSize&(m.pageSize-1) == 0
	return m, good
}

// readMeta returns the meta that counts. both is false where one of the two is damaged: the other
// may be that of the transaction before the last one.
func readMeta(r io.ReaderAt) (m meta, both bool, err error) {
	read := func(number uint64, at int64) (meta, bool) {
		page := make([]byte, headerSize+metaSize)
		if _, err := r.ReadAt(page, at); err != nil {
			return meta{}, false
		}
		return decodeMeta(page, number)
	}
	first, good := read(0, 0)
	if good {
		second, both := read(1, int64(first.pageSize))
		if both && second.pageSize == first.pageSize && second.txid > first.txid {
			return second, true, nil
		}
		return first, both, nil
	}
	for size := int64(minPageSize); size <= maxPageSize; size *= 2 {
		if second, good := read(1, size); good && second.pageSize == uint64(size) {
			return second, false, nil
		}
	}
	return meta{}, false, ErrNoMeta
}

// page is a page with its overflow, or an inline page. data begins with the header.
type page struct {
	id       uint64
	kind     uint16
	count    int
	overflow uint64
	data     []byte
}

func decodeHeader(data []byte) page {
	return page{id: order.Uint64(data), kind: order.Uint16(data[8:]), count: int(order.Uint16(data[10:])), overflow: uint64(order.Uint32(data[12:])), data: data}
}

// element is an element of a leaf or branch page. Its slices are parts of the page.
type element struct {
	flags      uint32 // of a leaf
	key, value []byte // no value in a branch
	child      uint64 // of a branch
}

// elements returns the elements of a leaf or branch page. bad says what is wrong, one text for
// each fault; lost is how many elements cannot be read. all is in memory, as far as that is large enough.
func (p page) elements(memory []element) (all []element, lost int, bad []string) {
	all = memory[:0]
	fault := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	count := p.count
	// The data of the first element stand right behind the last element.
	if count > 0 && len(p.data) >= headerSize+elementSize {
		if told := int(p.firstPos()) / elementSize; told != count || int(p.firstPos())%elementSize != 0 {
			fault("it says that it has %d elements, and has room for %d", count, told)
			if p.follows(told) {
				count = told
			}
		}
	} else if count == 0 && len(p.data) >= headerSize+elementSize && p.firstPos() > 0 && p.follows(int(p.firstPos())/elementSize) {
		fault("it says that it has no elements, and has some")
		count = int(p.firstPos()) / elementSize
	}
	expected := headerSize + elementSize*count
	for i := range count {
		e, start, end, ok := p.element(i, headerSize+elementSize*count)
		if !ok {
			fault("element %d does not lie in the page", i)
			lost++
			continue
		}
		if start != expected {
			fault("element %d begins at byte %d, want %d", i, start, expected)
		}
		expected = end
		all = append(all, e)
	}
	return all, lost, bad
}

// firstPos returns where the first element says that its data begin, from its own place on.
func (p page) firstPos() uint32 {
	if p.kind == branchPage {
		return order.Uint32(p.data[headerSize:])
	}
	return order.Uint32(p.data[headerSize+4:])
}

// follows reports whether count elements have data that follow each other without a gap.
func (p page) follows(count int) bool {
	expected := headerSize + elementSize*count
	if count <= 0 || expected > len(p.data) {
		return false
	}
	for i := range count {
		_, start, end, ok := p.element(i, headerSize+elementSize*count)
		if !ok || start != expected {
			return false
		}
		expected = end
	}
	return true
}

// element returns one element, and where its data begin and end in the page; ok is false where
// they do not lie in the page, behind the byte from.
func (p page) element(i, from int) (e element, start, end int, ok bool) {
	at := headerSize + elementSize*i
	if at+elementSize > len(p.data) {
		return e, 0, 0, false
	}
	raw := p.data[at:]
	var pos, keySize, valueSize uint64
	if p.kind == branchPage {
		pos, keySize, e.child = uint64(order.Uint32(raw)), uint64(order.Uint32(raw[4:])), order.Uint64(raw[8:])
	} else {
		e.flags = order.Uint32(raw)
		pos, keySize, valueSize = uint64(order.Uint32(raw[4:])), uint64(order.Uint32(raw[8:])), uint64(order.Uint32(raw[12:]))
	}
	first := uint64(at) + pos
	last := first + keySize + valueSize
	if first < uint64(from) || last > uint64(len(p.data)) || keySize == 0 || keySize > maxKeySize {
		return e, 0, 0, false
	}
	start, end = int(first), int(last)
	e.key, e.value = p.data[start:start+int(keySize)], p.data[start+int(keySize):end]
	return e, start, end, true
}

// freelist returns the numbers of free pages, of which there are fewer than next; ok is false
// where they cannot be trusted.
func (p page) freelist(next uint64) (ids []uint64, ok bool) {
	rest, count := p.data[headerSize:], uint64(p.count)
	if p.count == freelistCount {
		if len(rest) < 8 {
			return nil, false
		}
		count, rest = order.Uint64(rest), rest[8:]
	}
	if count > uint64(len(rest)/8) || count > next {
		return nil, false
	}
	ids = make([]uint64, count)
	before := uint64(1)
	for i := range ids {
		ids[i] = order.Uint64(rest[8*i:])
		if ids[i] <= before || ids[i] >= next {
			return nil, false
		}
		before = ids[i]
	}
	return ids, true
}
