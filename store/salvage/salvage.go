package salvage

import (
	"fmt"
	"io"
)

// Visitor gets what is left of a file. The slices are valid during the call alone. An error ends
// the reading.
type Visitor struct {
	// Bucket is called with each bucket of the root, before its values, and with its sequence.
	Bucket func(name []byte, sequence uint64) error
	// Value is called with each key and value. bucket is the bucket by which it was reached;
	// damage may make that a wrong one. It is nil for a value of a page that no bucket leads
	// to any more.
	Value func(bucket, key, value []byte) error
}

// Bytes is a file in memory. Its pages are read where they are, without a copy.
type Bytes []byte

// ReadAt implements io.ReaderAt.
func (b Bytes) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= int64(len(b)) {
		return 0, io.EOF
	}
	if n = copy(p, b[off:]); n < len(p) {
		err = io.EOF
	}
	return n, err
}

// maxProblems bounds how many problems a Report names.
const maxProblems = 20

// Report says what is wrong with a file.
type Report struct {
	// SteppedBack tells that one of the two meta pages is damaged. The other one may be that
	// of the transaction before the last: the file is then as it was before the last one.
	SteppedBack bool
	LostPages   int      // pages with buckets, keys or values that cannot be read
	LostValues  int      // values of pages that can be read
	Found       int      // how many problems there are
	Problems    []string // the first of them
}

// Sound reports whether bbolt can work with the file.
func (r *Report) Sound() bool { return r.Found == 0 }

func (r *Report) add(format string, args ...any) {
	if r.Found++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// Inspect looks for damage in the structure of a file of size bytes. It reads each page that is
// in use once. It returns ErrNoMeta where both meta pages are damaged. An empty file is sound:
// bbolt makes a new one of it.
func Inspect(r io.ReaderAt, size int64) (Report, error) {
	return Read(r, size, Visitor{})
}

// Read is Inspect, and gives the visitor what is left.
func Read(r io.ReaderAt, size int64, v Visitor) (Report, error) {
	if size == 0 {
		return Report{}, nil
	}
	m, both, err := readMeta(r)
	if err != nil {
		return Report{}, err
	}
	w := &walker{file: r, meta: m, have: uint64(size) / m.pageSize, visitor: v}
	w.memory, _ = r.(Bytes)
	w.seen, w.free = newSet(min(w.have, m.next)), newSet(min(w.have, m.next))
	w.seen.add(0)
	w.seen.add(1)
	if !both {
		w.report.SteppedBack = true
		w.report.add("one of the two meta pages is damaged")
	}
	if m.next > w.have {
		w.report.add("the file has %d pages, and should have %d", w.have, m.next)
	}
	if err := w.walk(); err != nil {
		return w.report, err
	}
	return w.report, nil
}

// set is a set of page numbers below a bound.
type set struct {
	bits  []uint64
	bound uint64
}

func newSet(bound uint64) set { return set{make([]uint64, bound/64+1), bound} }

func (s set) has(id uint64) bool { return id < s.bound && s.bits[id/64]&(1<<(id%64)) != 0 }

func (s set) add(id uint64) {
	if id < s.bound {
		s.bits[id/64] |= 1 << (id % 64)
	}
}
