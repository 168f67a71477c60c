package telemt

import (
	"syscall"
	"testing"
	"time"
)

// A quota is counted by the node: it outlives a telemt that is killed and another daemon, and
// holds for open sessions too. A larger one lets the client in again.
func TestQuotaOutlivesTelemt(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		state := t.TempDir()
		r := newRigIn(t, state, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("stays"), client("ends", `"quotaBytes":5000`))))
		stays, ends := r.dial(port, "stays"), r.dial(port, "ends")
		r.exchange(ends, 1000, 1000)
		r.exchange(stays, 10, 10)
		r.engine.Collect(t.Context())
		pid := r.inbound("mtproto-1").PID
		r.signal(pid, syscall.SIGKILL)
		r.eventually("telemt runs again", func() bool { now := r.inbound("mtproto-1"); return now.PID != pid && now.State == StateReady })
		ends = r.dial(port, "ends")
		r.exchange(ends, 2000, 2000)
		r.engine.Collect(t.Context())
		r.cut(ends, 5*time.Second)
		refused := func(r *rig) bool { _, err := r.tryDial(port, secretOf("ends", 1)); return err != nil }
		r.eventually("the client is refused", func() bool { return refused(r) })
		stays = r.dial(port, "stays")
		r.exchange(stays, 10, 10)
		r.stop()

		r = newRigIn(t, state, binary)
		r.apply(r.service(inbound(1, port, "", client("stays"), client("ends", `"quotaBytes":5000`))))
		if !refused(r) {
			t.Error("another daemon lets in a client whose quota is used up")
		}
		r.apply(r.service(inbound(1, port, "", client("stays"), client("ends", `"quotaBytes":50000`))))
		r.exchange(r.dial(port, "ends"), 10, 10)
	})
}
