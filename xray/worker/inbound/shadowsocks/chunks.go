package shadowsocks

import (
	gonet "net"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/bytespool"
)

// chunk is how many bytes are encrypted at once, at the most, and how many are read at once while
// much comes: the library's answer to a request has less room than its 64 KiB.
const chunk = 32 << 10

// chunkReader reads what a client sends. A client that sends much sends pieces that are longer than
// one of xray-core's buffers; a piece is passed on whole then, so that it is written at once.
type chunkReader struct {
	conn gonet.Conn
	much bool // the last read filled a buffer
}

func (r *chunkReader) ReadMultiBuffer() (buf.MultiBuffer, error) {
	if !r.much {
		b, err := buf.ReadBuffer(r.conn)
		if b == nil {
			return nil, err
		}
		r.much = b.IsFull()
		return buf.MultiBuffer{b}, err
	}
	piece := bytespool.Alloc(chunk)
	defer bytespool.Free(piece)
	n, err := r.conn.Read(piece[:chunk])
	r.much = n >= buf.Size
	return buf.MergeBytes(nil, piece[:n]), err
}

// chunkWriter writes what comes together in one piece: each piece is encrypted and sent
// by itself.
type chunkWriter struct{ conn gonet.Conn }

func (w chunkWriter) WriteMultiBuffer(mb buf.MultiBuffer) error {
	piece := bytespool.Alloc(min(chunk, mb.Len())) // rounded up, perhaps
	defer bytespool.Free(piece)
	for !mb.IsEmpty() {
		var n int
		mb, n = buf.SplitBytes(mb, piece[:min(chunk, len(piece))])
		if _, err := w.conn.Write(piece[:n]); err != nil {
			buf.ReleaseMulti(mb)
			return err
		}
	}
	return nil
}

// Close ends the client's connection, which tells the client that the other side has ended.
func (w chunkWriter) Close() error { return w.conn.Close() }
