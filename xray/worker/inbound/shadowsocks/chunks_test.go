package shadowsocks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"pgregory.net/rapid"
)

// What a client sends arrives whole and in order, whatever the sizes of its pieces, and no buffer is
// longer than xray-core's: some of its outbounds would cut a longer one off.
func TestChunkReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		server, client := net.Pipe()
		defer server.Close()
		var sent bytes.Buffer
		pieces := rapid.SliceOfN(rapid.IntRange(1, 3*buf.Size), 0, 12).Draw(t, "sizes of pieces")
		for i, size := range pieces {
			sent.Write(bytes.Repeat([]byte{byte(i + 1)}, size))
		}
		go func() {
			defer client.Close()
			rest := sent.Bytes()
			for _, size := range pieces {
				_, _ = client.Write(rest[:size])
				rest = rest[size:]
			}
		}()
		var got bytes.Buffer
		for r := (&chunkReader{conn: server}); ; {
			mb, err := r.ReadMultiBuffer()
			for _, b := range mb {
				if b.Cap() > buf.Size {
					t.Fatalf("a buffer has room for %d bytes", b.Cap())
				}
				got.Write(b.Bytes())
			}
			buf.ReleaseMulti(mb)
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), sent.Bytes()) {
			t.Fatalf("%d bytes of %d arrived as they were", got.Len(), sent.Len())
		}
	})
}
