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

// full is how many datagrams of a size a source may send before any is dropped.
func full(t *testing.T, reader buf.Reader, writer buf.Writer, size int32) int {
	t.Helper()
	for range 20_000 {
		datagram := buf.New()
		datagram.Extend(size)
		if err := writer.WriteMultiBuffer(buf.MultiBuffer{datagram}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := reader.ReadMultiBuffer()
	if err != nil {
		t.Fatal(err)
	}
	buf.ReleaseMulti(got)
	return len(got)
}

// A source may send more at once than xray-core keeps by itself, but not so many short datagrams that their
// buffers hold much memory. TestWireGuard in internal/e2e shows that xray-core's own connection is built in
// this way.
func TestRoom(t *testing.T) {
	reader, writer := pipe.New(pipe.DiscardOverflow(), pipe.WithSizeLimit(UsualRoom))
	conn := Whole(&perSource{reader: reader})
	room, err := RoomOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	from := conn.(buf.Reader)
	for _, c := range []struct{ sent, size, least, most int }{
		{1400, 1400, 180, 200},
		{96, 96, 250, 260},
		{1400, 1400, 180, 200},
		{32, 32, 500, 520}, // of the usual room
	} {
		room.Fit(10, int32(10*c.sent), 256<<10)
		if n := full(t, from, writer, int32(c.size)); n < c.least || n > c.most {
			t.Errorf("%d datagrams of %d bytes waited, want %d to %d", n, c.size, c.least, c.most)
		}
	}
	room.Fit(1, 1400, 256<<10)
	room.Close()
	if n := full(t, from, writer, 1400); n > 13 || wide.Load() != 0 {
		t.Errorf("after the end %d datagrams waited, and %d sources have room", n, wide.Load())
	}
}

// More sources than a bound have the usual room, until others end.
func TestRoomOfAllSources(t *testing.T) {
	var rooms []*Room
	wider := func() (n int) {
		for _, room := range rooms {
			if room.Fit(1, 1400, 256<<10); *room.limit > UsualRoom {
				n++
			}
		}
		return n
	}
	for range mostWide + 10 {
		reader, _ := pipe.New(pipe.DiscardOverflow(), pipe.WithSizeLimit(UsualRoom))
		room, err := RoomOf(Whole(&perSource{reader: reader}))
		if err != nil {
			t.Fatal(err)
		}
		defer room.Close()
		rooms = append(rooms, room)
	}
	if n := wider(); n != mostWide {
		t.Errorf("%d sources have more room, want %d", n, mostWide)
	}
	for _, room := range rooms[:10] {
		room.Close()
	}
	rooms = rooms[10:]
	if n := wider(); n != mostWide {
		t.Errorf("after 10 have ended, %d sources have more room, want %d", n, mostWide)
	}
}

func TestRoomOfAnother(t *testing.T) {
	for name, conn := range map[string]stat.Connection{"no source": &perSource{}, "no pipe": Whole(&perSource{reader: buf.NewReader(nil)})} {
		if _, err := RoomOf(conn); err == nil {
			t.Errorf("%s: there is no error", name)
		}
	}
}
