package wireguard

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/xtls/xray-core/common/buf"
)

// A read takes segments of every size in their order, and tells where it is full.
func TestFilledTakesWhatFits(t *testing.T) {
	var f filled
	want := bytes.Repeat([]byte("0123456789abcdef"), readAtOnce*buf.Size/16+1)
	rest := want
	for _, size := range []int{1, 1380, 3 * buf.Size, 1380} {
		if n, err := f.Write(rest[:size]); n != size || err != nil {
			t.Fatalf("of %d bytes it took %d: %v", size, n, err)
		}
		rest = rest[size:]
	}
	n, err := f.Write(rest)
	if !errors.Is(err, io.ErrShortWrite) || n != len(rest)-16 {
		t.Errorf("of %d bytes, 16 more than fit, it took %d: %v", len(rest), n, err)
	}
	if len(f.mb) != readAtOnce || f.mb.String() != string(want[:readAtOnce*buf.Size]) {
		t.Errorf("it has %d buffers with %d bytes, other than those that were written", len(f.mb), f.mb.Len())
	}
}
