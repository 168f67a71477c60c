package telemt

import (
	"errors"
	"strings"
	"testing"

	"nodeagent/telemt/service"
)

// A wrong key that would end telemt at its next look at the file ends nothing: another telemt has
// judged the change before. The refusal is final, and has telemt's words.
func TestAChangeIsJudgedBeforeAnythingEnds(t *testing.T) {
	onEach(t, func(t *testing.T, binary string) {
		r := newRig(t, binary)
		port := r.port()
		r.apply(r.service(inbound(1, port, "", client("alice"))))
		pid := r.inbound("mtproto-1").PID
		alice := r.dial(port, "alice")
		for range 2 {
			err := r.engine.Apply(t.Context(), r.serviceWith(`,"server":{"max_conections":1}`, inbound(1, port, "", client("alice"))))
			refusal, is := errors.AsType[*service.ApplyError](err)
			if !is || !refusal.Final || !strings.Contains(refusal.Message, "max_conections") || refusal.Port != uint16(port) {
				t.Fatalf("got %v, want telemt's own words, and a final refusal", err)
			}
		}
		if now := r.inbound("mtproto-1"); now.PID != pid || now.Restarts != 0 {
			t.Errorf("process %d is now %+v", pid, now)
		}
		r.exchange(alice, 10, 10)
		r.apply(r.service(inbound(1, port, "", client("alice"), client("bob"))))
		r.exchange(alice, 10, 10)
		r.dial(port, "bob")
	})
}
