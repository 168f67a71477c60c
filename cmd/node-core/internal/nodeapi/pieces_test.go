package nodeapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// frames is a writer that notes what would be one frame of HTTP/2: what is written at once, or collected until
// it is flushed.
type frames struct {
	*httptest.ResponseRecorder
	collected, largest int
}

func (f *frames) Write(p []byte) (int, error) {
	if f.collected += len(p); f.collected > pieceSize {
		f.collected = len(p)
	}
	f.largest = max(f.largest, f.collected)
	return f.ResponseRecorder.Write(p)
}

func (f *frames) Flush() { f.collected = 0 }

func TestAnswersAreWrittenInPieces(t *testing.T) {
	for _, c := range []struct{ protocol, part, parts, largest int }{
		{2, 100, 1, 100},
		{2, 5 << 10, 1, smallPieceSize},
		{2, 3000, 5, smallPieceSize},
		{2, 20 << 10, 10, pieceSize},
		{1, 20 << 10, 10, 20 << 10},
	} {
		var parts [][]byte
		for i := range c.parts {
			parts = append(parts, bytes.Repeat([]byte{byte(i)}, c.part))
		}
		w := &frames{ResponseRecorder: httptest.NewRecorder()}
		writePieces(&request{Request: &http.Request{ProtoMajor: c.protocol}, w: w}, parts...)
		if w.largest != c.largest || !bytes.Equal(w.Body.Bytes(), bytes.Join(parts, nil)) {
			t.Errorf("HTTP/%d, %d parts of %d bytes: the largest piece has %d bytes, want %d, and %d bytes are written", c.protocol, c.parts, c.part, w.largest, c.largest, w.Body.Len())
		}
	}
}
