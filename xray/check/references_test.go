package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A removed client's outbound is gone with it. The rules that name it stay, do not refuse a
// revision now or later, and get a warning.
func TestRulesToARemovedClientsOutbound(t *testing.T) {
	desired := func(clients, rules string) state.State {
		t.Helper()
		s, err := xraytest.Parse(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}],
			"outbounds":[{"tag":"direct"},{"tag":"a","streamSettings":{"sockopt":{"dialerProxy":"home"}}}],
			"routing":{"rules":[%s{"outboundTag":"home"}],"balancers":[{"tag":"b","selector":["ho"],"fallbackTag":"home"}]}}`, clients, rules))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	bob := `{"id":"` + xraytest.UUIDB + `"}`
	with := desired(`{"id":"`+xraytest.UUIDA+`","reverse":{"tag":"home"}},`+bob, "")
	without := desired(bob, "")
	if err := Clients(state.State{}, with); err != nil {
		t.Fatal(err)
	}
	if warnings := Warnings(with, time.Now()); len(warnings) > 0 {
		t.Errorf("warnings %q about an outbound that exists", warnings)
	}
	if err := Clients(with, without); err != nil {
		t.Errorf("the removal of the client is refused: %v", err)
	}
	later := desired("", `{"port":"25","outboundTag":"direct"},`)
	if err := Clients(without, later); err != nil {
		t.Errorf("the next change is refused: %v", err)
	}
	if err := Clients(state.State{}, without); err == nil {
		t.Error("a new configuration with rules to a missing outbound is accepted")
	}
	if err := Clients(with, desired(bob, `{"outboundTag":"nowhere"},`)); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("another rule to a missing outbound: %v", err)
	}
	if all := strings.Join(Warnings(without, time.Now()), "\n"); strings.Count(all, `"home"`) != 3 || !strings.Contains(all, `["ho"]`) {
		t.Errorf("warnings %q", all)
	}
}

// An outbound cannot be removed while another one dials through it.
func TestOutboundsThatOthersDialThroughStay(t *testing.T) {
	state := func(more string) state.State {
		t.Helper()
		s, err := xraytest.Parse(`{"outbounds":[{"tag":"direct"},{"tag":"a","proxySettings":{"tag":"b"}}` + more + `]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := Clients(state(`,{"tag":"b"}`), state("")); err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("error %v", err)
	}
}
