package xray

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A client that leaves takes its outbound along: the rules to it stay, and refuse no
// revision, now or later. A warning tells of them.
func TestClientsTakeTheirOutboundsAlong(t *testing.T) {
	state := func(clients, rules string) State {
		t.Helper()
		s, err := parseText(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}],
			"outbounds":[{"tag":"direct"},{"tag":"a","streamSettings":{"sockopt":{"dialerProxy":"home"}}}],
			"routing":{"rules":[%s{"outboundTag":"home"}],"balancers":[{"tag":"b","selector":["ho"],"fallbackTag":"home"}]}}`, clients, rules))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	bob := `{"id":"` + uuidB + `"}`
	with := state(`{"id":"`+uuidA+`","reverse":{"tag":"home"}},`+bob, "")
	without := state(bob, "")
	if err := checkAny(State{}, with); err != nil {
		t.Fatal(err)
	}
	if warnings := Warnings(with, time.Now()); len(warnings) > 0 {
		t.Errorf("warnings %q of what is there", warnings)
	}
	if err := checkAny(with, without); err != nil {
		t.Errorf("the client can't leave: %v", err)
	}
	later := state("", `{"port":"25","outboundTag":"direct"},`)
	if err := checkAny(without, later); err != nil {
		t.Errorf("the next change is refused: %v", err)
	}
	if err := checkAny(State{}, without); err == nil {
		t.Error("a new configuration with rules to nowhere was taken")
	}
	if err := checkAny(with, state(bob, `{"outboundTag":"nowhere"},`)); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("another rule to nowhere: %v", err)
	}
	if all := strings.Join(Warnings(without, time.Now()), "\n"); strings.Count(all, `"home"`) != 3 || !strings.Contains(all, `["ho"]`) {
		t.Errorf("warnings %q", all)
	}
}

// An outbound that alone is taken out may leave nobody behind who dials through it.
func TestWhatOthersDialThroughStays(t *testing.T) {
	state := func(more string) State {
		t.Helper()
		s, err := parseText(`{"outbounds":[{"tag":"direct"},{"tag":"a","proxySettings":{"tag":"b"}}` + more + `]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := checkAny(state(`,{"tag":"b"}`), state("")); err == nil || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("error %v", err)
	}
}
