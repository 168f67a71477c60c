package traffic

import (
	"time"

	"github.com/xtls/xray-core/common/buf"
)

// TLS records (RFC 8446, section 5): a type, a version of two bytes, a length of two bytes,
// and as many bytes of content.
const (
	recordHeader    = 5
	recordLongest   = 1<<14 + 256
	recordOldest    = 20 // change_cipher_spec
	recordHandshake = 22
	recordData      = 23 // application_data, also the encrypted handshake of TLS 1.3
)

// heldLongest is how long the beginning of a record is held back. A TLS server sends the end at
// once. The bound is for a protocol that only looks like TLS.
const heldLongest = time.Second

// wholeRecords cuts what a TLS server sends so that each part ends with a record, until one
// part has records of application data only.
//
// Vision leaves its padding, and splices, at the first part that is nothing but whole records
// of application data (IsCompleteRecord, xray-core's proxy/proxy.go:400). A part is what one
// read returned. A server that sends much fills the reads, and no read ends with a record: such
// a connection is padded and encrypted twice to its end, at ten times the price. The client has
// no use for the beginning of a record, so that nothing is late.
type wholeRecords struct {
	done   bool // what comes is passed as it comes
	held   buf.MultiBuffer
	since  time.Time          // when the oldest byte of held came
	header [recordHeader]byte // of the record that is being read
	got    int                // how many bytes of header were read
	left   int                // how many bytes of the record's content are to come
	begun  bool               // a header was read
	other  bool               // since the last part, a record ended that is no application data
}

// cut takes what was read and returns what to pass on. It may return nothing, unless end says
// that nothing more will come.
func (w *wholeRecords) cut(mb buf.MultiBuffer, end bool) buf.MultiBuffer {
	if w.done {
		return mb
	}
	if w.held.IsEmpty() {
		w.since = time.Now()
	}
	whole, ok := 0, true
	if !mb.IsEmpty() {
		whole, ok = w.scan(mb, int(w.held.Len()))
		w.held, _ = buf.MergeMulti(w.held, mb)
	}
	if !ok || end || time.Since(w.since) > heldLongest {
		w.done = true
		return w.rest()
	}
	if whole == 0 {
		return nil
	}
	w.done, w.other = !w.other, false
	rest, part := splitAt(w.held, int32(whole))
	w.held, w.since = rest, time.Now()
	return part
}

// rest returns what is held back, and holds it no more.
func (w *wholeRecords) rest() buf.MultiBuffer {
	held := w.held
	w.held = nil
	return held
}

// scan reads the records' headers in mb, which begins at offset. It returns the offset at
// which the last whole record ends, or 0 for none; ok is false if this is not TLS.
func (w *wholeRecords) scan(mb buf.MultiBuffer, offset int) (whole int, ok bool) {
	for _, b := range mb {
		for content := b.Bytes(); len(content) > 0; {
			if w.got < recordHeader {
				n := copy(w.header[w.got:], content)
				content, offset, w.got = content[n:], offset+n, w.got+n
				if !w.plausible() {
					return 0, false
				}
				if w.got < recordHeader {
					break
				}
				w.begun = true
			}
			n := min(w.left, len(content))
			content, offset, w.left = content[n:], offset+n, w.left-n
			if w.left == 0 {
				whole, w.got = offset, 0
				w.other = w.other || w.header[0] != recordData
			}
		}
	}
	return whole, true
}

// plausible tells whether the bytes of a header that were read may be TLS. The first record of a
// server is of its handshake. It sets left once the header is whole.
func (w *wholeRecords) plausible() bool {
	kind, major := w.header[0], w.header[1]
	switch {
	case !w.begun && kind != recordHandshake, kind < recordOldest, kind > recordData, w.got > 1 && major != 3:
		return false
	case w.got < recordHeader:
		return true
	}
	w.left = int(w.header[3])<<8 | int(w.header[4])
	return w.left > 0 && w.left <= recordLongest
}

// splitAt returns the first size bytes of mb as part, and the others as rest.
func splitAt(mb buf.MultiBuffer, size int32) (rest, part buf.MultiBuffer) {
	for size > 0 {
		var some buf.MultiBuffer
		mb, some = buf.SplitSize(mb, size) // stops before a buffer that it would have to cut
		size -= some.Len()
		part = append(part, some...)
	}
	return mb, part
}
