// Package varint writes and reads many small values without reflection: numbers as varints
// (encoding/binary), and texts one after the other, whose lengths are among the numbers. A reader of one
// kind of values knows which come, so that nothing says it.
package varint

import "encoding/binary"

// Writer appends values.
type Writer struct{ Numbers, Texts []byte }

// Number appends a number.
func (w *Writer) Number(n uint64) { w.Numbers = binary.AppendUvarint(w.Numbers, n) }

// Signed appends a number that may be negative.
func (w *Writer) Signed(n int64) { w.Numbers = binary.AppendVarint(w.Numbers, n) }

// Text appends a text.
func (w *Writer) Text(s string) {
	w.Number(uint64(len(s)))
	w.Texts = append(w.Texts, s...)
}

// Reader reads the values that a Writer has appended, in the same order. A value that is not there is
// zero, and sets Failed.
type Reader struct {
	Numbers []byte // that are left
	Texts   string // that are left
	Failed  bool
}

// Number reads a number.
func (r *Reader) Number() uint64 {
	n, size := binary.Uvarint(r.Numbers)
	return taken(r, n, size)
}

// Signed reads a number that may be negative.
func (r *Reader) Signed() int64 {
	n, size := binary.Varint(r.Numbers)
	return taken(r, n, size)
}

// taken takes a number of that many bytes from the front.
func taken[N uint64 | int64](r *Reader, n N, size int) N {
	if size <= 0 {
		r.Failed, r.Numbers = true, nil
		return 0
	}
	r.Numbers = r.Numbers[size:]
	return n
}

// Text reads a text, which is a part of Texts.
func (r *Reader) Text() string { return Cut(r, &r.Texts) }

// Cut reads a length, and takes so many bytes from the front of left.
func Cut[T string | []byte](r *Reader, left *T) (cut T) {
	n := r.Number()
	if n > uint64(len(*left)) {
		r.Failed = true
		return cut
	}
	cut, *left = (*left)[:n], (*left)[n:]
	return cut
}
