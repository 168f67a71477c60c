package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/xray"
	"nodeagent/xray/ipc"
	"nodeagent/xray/state"
)

// An engine's report during the apply of a configuration reaches Core before the outcome.
func TestNoticesComeBeforeTheOutcome(t *testing.T) {
	db := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, db)
		n.engine.fail = func(state.State) error {
			n.inbox.XrayFailed(xray.Failure{Crash: true, Changing: true, Fault: fault.OnHost("", "the cause")})
			return errors.New("the outcome")
		}
		if err := n.apply(t.Context(), nodeConfig(t, 3, 443), ""); err == nil {
			t.Fatal("it was applied")
		}
		n.during(t, time.Minute)
		var got []string
		for _, p := range n.core.posted(wire.PathError) {
			for _, text := range []string{"the cause", "the outcome"} {
				if strings.Contains(p.body, text) {
					got = append(got, text)
				}
			}
		}
		if !slices.Equal(got, []string{"the cause", "the outcome"}) {
			t.Errorf("Core was told %v", got)
		}
	})
}

// A slot is closed once, keeps the order of its presence, and is not given back while a newer
// configuration uses it.
func TestInbox(t *testing.T) {
	inbox := NewInbox()
	ip := netip.MustParseAddr("192.0.2.1")
	inbox.XrayPresence(ipc.Presence{Slot: 1, IP: ip, Online: true, At: noon})
	inbox.SlotsClosed([]uint32{1, 2, 3})
	var changes []bool // ended
	for _, c := range inbox.takeSessions() {
		changes = append(changes, c.ended)
	}
	if !slices.Equal(changes, []bool{false, true, true, true}) {
		t.Errorf("the sessions got %v, want the presence and then three ends", changes)
	}
	inbox.forgetClosed(slotSet{1 << 2})
	if closed := inbox.takeClosed(); !slices.Equal(closed, []uint32{1, 3}) {
		t.Errorf("closed are %v, want 1 and 3", closed)
	}
	if closed := inbox.takeClosed(); len(closed) != 0 {
		t.Errorf("closed twice: %v", closed)
	}
	if len(inbox.takeSessions()) != 0 {
		t.Error("a change of a session came twice")
	}
}
