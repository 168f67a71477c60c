package datagrams

import (
	"testing"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/pipe"
)

// perSource is built as xray-core's connection for the datagrams of one source.
type perSource struct {
	stat.Connection
	reader buf.Reader
}

func (c *perSource) ReadMultiBuffer() (buf.MultiBuffer, error) { return c.reader.ReadMultiBuffer() }

// A source may send more at once than xray-core keeps by itself. TestWireGuard in internal/e2e shows that
// xray-core's own connection is built in this way.
func TestWiden(t *testing.T) {
	const all = 40
	reader, writer := pipe.New(pipe.DiscardOverflow(), pipe.WithSizeLimit(16<<10))
	conn := Whole(&perSource{reader: reader})
	if err := Widen(conn, 64<<10); err != nil {
		t.Fatal(err)
	}
	for range all {
		datagram := buf.New()
		datagram.Extend(1400)
		if err := writer.WriteMultiBuffer(buf.MultiBuffer{datagram}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := conn.(buf.Reader).ReadMultiBuffer()
	if err != nil || len(got) != all {
		t.Errorf("%d datagrams of %d came, and the error %v", len(got), all, err)
	}
	buf.ReleaseMulti(got)
}

func TestWidenAnother(t *testing.T) {
	for name, conn := range map[string]stat.Connection{"no source": &perSource{}, "no pipe": Whole(&perSource{reader: buf.NewReader(nil)})} {
		if err := Widen(conn, 64<<10); err == nil {
			t.Errorf("%s: there is no error", name)
		}
	}
}
