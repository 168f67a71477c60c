package telemt

import (
	"strings"
	"testing"

	"nodeagent/telemt/process"
)

// A change that telemt can't make live is a reload, and open sessions go on for DrainTimeout. A real
// release that can't reload is restarted when it is calm.
func TestReloadDrains(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		running := r.inbound("mtproto-1")
		if !(process.Release{Version: "v" + strings.TrimPrefix(running.Version, "v")}).CanReload() {
			r.restartsWhenCalm()
			return
		}
		before := r.dial(port, "alice")
		r.exchange(before, 1000, 2000)
		r.apply(r.service(inbound(1, port, `"tlsDomains":["other.example"]`, client("alice"), client("bob"))))
		if r.inbound("mtproto-1").PID != running.PID {
			t.Error("telemt was restarted, though it can reload")
		}
		r.exchange(before, 1, 1) // drains and is not counted, as Config.DrainTimeout says
		after := r.dial(port, "bob")
		r.exchange(after, 100, 100)
		r.wantCounted(slot(1, "alice"), 2, 1001, 2001)
		r.wantCounted(slot(1, "bob"), 2, 101, 101)
		r.cut(before, patience)
		r.exchange(after, 1, 1)
		r.wantCounted(slot(1, "bob"), 3, 102, 102)
	})
}

// otherDomain is a member that telemt does not change live.
const otherDomain = `"tlsDomains":["other.example"]`

// restartsWhenCalm checks that a telemt that can't reload goes on while a session is open, with
// a warning, and is restarted after the last one has ended.
func (r *rig) restartsWhenCalm() {
	r.t.Helper()
	port, otherPort := r.port(), r.port()
	r.apply(r.service(inbound(1, port, "", client("alice")), inbound(2, otherPort, "", client("alice"))))
	pid := r.inbound("mtproto-1").PID
	alice, other := r.dial(port, "alice"), r.dial(otherPort, "alice")
	r.exchange(alice, 1000, 2000)
	r.apply(r.service(inbound(1, port, otherDomain, client("alice")), inbound(2, otherPort, otherDomain, client("alice"))))
	if r.inbound("mtproto-1").PID != pid {
		r.t.Error("telemt was restarted under open sessions")
	}
	r.exchange(alice, 1, 1)
	r.exchange(other, 1, 1)
	r.engine.Collect(r.t.Context())
	if got := strings.Join(r.engine.Status().Warnings, "\n"); !strings.Contains(got, "takes the last change only with a restart") {
		r.t.Errorf("warnings %q", got)
	}
	_ = alice.Close()
	r.eventually("telemt is restarted", func() bool { now := r.inbound("mtproto-1").PID; return now != pid && now != 0 })
	if got := strings.Join(r.engine.Status().Warnings, "\n"); strings.Contains(got, `"mtproto-1": telemt`) {
		r.t.Errorf("warnings %q", got)
	}
	r.dial(port, "alice")
	r.wantCounted(slot(1, "alice"), 4, 1003, 2003)
}

// A telemt that can't reload is restarted at once where no session is open, and else after the
// last one has ended.
func TestOldReleaseIsRestarted(t *testing.T) {
	newRig(t, double(t, "version=3.4.20")).restartsWhenCalm()
}

// A telemt whose reload fails is restarted.
func TestFailedReloadIsRestarted(t *testing.T) {
	r := newRig(t, double(t, "fail_reload=true"))
	port, otherPort := r.port(), r.port()
	r.apply(r.service(inbound(1, port, "", client("alice")), inbound(2, otherPort, "", client("alice"))))
	pid := r.inbound("mtproto-1").PID
	alice, other := r.dial(port, "alice"), r.dial(otherPort, "alice")
	r.exchange(alice, 1000, 2000)
	r.apply(r.service(inbound(1, port, otherDomain, client("alice")), inbound(2, otherPort, otherDomain, client("alice"))))
	if r.inbound("mtproto-1").PID == pid {
		t.Error("telemt was not restarted")
	}
	r.cut(other, patience)
	r.dial(port, "alice")
	r.wantCounted(slot(1, "alice"), 3, 1002, 2002)
}
