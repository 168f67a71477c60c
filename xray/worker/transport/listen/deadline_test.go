package listen

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtls/xray-core/common/buf"
	"github.com/xtls/xray-core/common/net/cnc"
	"github.com/xtls/xray-core/transport/internet/stat"
	"github.com/xtls/xray-core/transport/pipe"
)

// connection returns a connection as gRPC's are, and what the handler of Deadlines gets of it.
func connection() (outer stat.Connection, closed func() bool) {
	reader, writer := pipe.New()
	inner := cnc.NewConnection(cnc.ConnectionInputMulti(writer), cnc.ConnectionOutputMulti(reader))
	Deadlines(func(conn stat.Connection) { outer = conn })(inner)
	return outer, func() bool { _, err := inner.Write([]byte("x")); return err != nil }
}

// A handshake that does not come ends the connection; one that came does not.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late, lateClosed := connection()
		done, doneClosed := connection()
		for _, conn := range []net.Conn{late, done} {
			if err := conn.SetReadDeadline(time.Now().Add(4 * time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if _, is := done.(buf.Reader); !is {
			t.Error("a connection of buffers is none any more")
		}
		time.Sleep(handshakeAtLeast - time.Second)
		if err := done.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if lateClosed() {
			t.Error("it is closed early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !lateClosed() {
			t.Error("one without a handshake is open")
		}
		time.Sleep(time.Hour)
		if doneClosed() {
			t.Error("one whose handshake came is closed")
		}
	})
}
