package telemt

import (
	"net"
	"os"
	"testing"
	"time"

	"nodeagent/internal/e2e"
	"nodeagent/telemt/process"
)

// slowReader reads about 20 Mbit/s: 16 KiB every six milliseconds at the most.
type slowReader struct{ net.Conn }

func (r slowReader) Read(p []byte) (int, error) {
	time.Sleep(6 * time.Millisecond)
	return r.Conn.Read(p[:min(len(p), 16<<10)])
}

// Megabytes in lockstep, over a slow reader: each side waits for the end of the other's transfer
// before it sends more. A release that holds back the end of a transfer stalls here.
func TestLargeTransfersInLockstep(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		if warning := process.ReleaseWarning(r.inbound("mtproto-1").Version); warning != "" && binary == os.Getenv("TELEMT_BIN") {
			t.Skipf("NOT RUN: %s", warning)
		}
		conn := slowReader{r.dial(port, "alice")}
		for range 3 {
			if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if err := e2e.Exchange(conn, 512<<10, 2<<20); err != nil {
				t.Fatalf("a large transfer: %v", err)
			}
		}
	})
}
