package nodeapi

import (
	"net/http"
	"slices"
)

// The server of HTTP/2 makes a frame of each piece, and keeps a buffer as large as its largest frame for as
// long as the connection lasts (http2Framer.wbuf in net/http/h2_bundle.go): 16 KB for each node that has
// got a document at once. A small answer has smaller pieces; more of them would cost a large one processor time.
const (
	pieceSize      = 4 << 10 // what the server collects by itself
	smallPieceSize = 1 << 10
	smallAnswer    = 32 << 10
)

// writePieces writes an answer. An error of writing means that the node has disconnected.
func writePieces(r *request, parts ...[]byte) {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	piece, controller := pieceSize, http.NewResponseController(r.w)
	if size <= smallAnswer {
		piece = smallPieceSize
	}
	for _, part := range parts {
		if r.ProtoMajor < 2 {
			_, _ = r.w.Write(part)
			continue
		}
		for p := range slices.Chunk(part, piece) {
			if _, err := r.w.Write(p); err != nil {
				return
			}
			if piece < pieceSize && size > piece {
				_ = controller.Flush() // not every writer of a test can
			}
		}
	}
}
