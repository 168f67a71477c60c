package xray_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nodeagent/xray/state"
)

// The dry run refuses what is new, and lets what runs pass.
func TestUnknownMembersThatRun(t *testing.T) {
	r := newRig(t)
	odd := func(more string) state.State {
		return r.state(`,"policy":{"levls":{}},"dns":{"servers":["localhost"],"tags":"x"},"outbounds":[{"tag":"direct","protocol":"freedom","streamSettings":{"sockopt":{"happyEyeballs":{"x":1}}}}]`+more, bobID)
	}
	if err := r.engine.Apply(t.Context(), odd("")); err == nil || !strings.Contains(err.Error(), "has no member") {
		t.Fatalf("got %v", err)
	}
	const observatory = `,"observatory":{"subjectSelector":["direct"],"probeInterval":"1h","x":1}`
	if err := r.engine.Restore(t.Context(), odd(observatory)); err != nil {
		t.Fatal(err)
	}
	r.apply(odd(observatory + `,"routing":{"domainStrategy":"AsIs"}`))
	if err := r.engine.Apply(t.Context(), odd(observatory+`,"routing":{"domainStrategys":"AsIs"}`)); err == nil || !strings.Contains(err.Error(), `"domainStrategy"`) {
		t.Fatalf("got %v", err)
	}
}

// A client of another one's password, or without one, is refused also where clients alone change, and
// nobody is touched.
func TestSharedPasswordIsRefused(t *testing.T) {
	r := newRig(t)
	state := func(clients string) state.State {
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"trojan","settings":{"clients":[%s]}}]}`,
			r.port, clients)), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	r.apply(state(`{"email":"a","password":"hush"}`))
	err := r.engine.Apply(t.Context(), state(`{"email":"a","password":"hush"},{"email":"b","password":"hush"}`))
	if err == nil || !strings.Contains(err.Error(), "have the same password") || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
	err = r.engine.Apply(t.Context(), state(`{"email":"a","password":"hush"},{"email":"c"}`))
	if err == nil || !strings.Contains(err.Error(), `client "c" has no password`) {
		t.Errorf("got %v", err)
	}
	r.apply(state(`{"email":"b","password":"hush"}`))
}
