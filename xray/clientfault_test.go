package xray_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/fault"
	"nodeagent/xray/state"
)

// A client that only xray-core refuses is named, and so are those that differ from it only in
// name and key: the inbound and its other clients can be had without them. It is the same for
// an inbound that is new and for one that runs.
func TestAClientThatXrayRefusesIsNamed(t *testing.T) {
	r := newRig(t)
	desired := func(clients ...string) state.State {
		t.Helper()
		s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"vless","settings":{"decryption":"none","clients":[%s]}}]}`,
			r.port, strings.Join(clients, ","))), func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	good := fmt.Sprintf(`{"email":"good","id":%q}`, aliceID)
	var bad, want []string
	for i := range 3 {
		name := fmt.Sprintf("bad-%d", i)
		bad, want = append(bad, fmt.Sprintf(`{"email":%q,"id":%q,"level":"x"}`, name, benchID(i+1))), append(want, name)
	}
	other := fmt.Sprintf(`{"email":"other","id":%q,"level":[]}`, benchID(9))
	check := func(to state.State, want ...string) {
		t.Helper()
		err := r.engine.Apply(t.Context(), to)
		var named []string
		for _, f := range fault.All(err) {
			if f.Kind != fault.Client || f.Tag != "in-1" || f.Retry || to.Inbounds["in-1"].Clients.Find(f.ClientEmail) == nil {
				t.Errorf("the fault %+v", f)
			}
			named = append(named, f.Client)
		}
		slices.Sort(named)
		if !slices.Equal(named, want) {
			t.Errorf("named are %q, want %q: %v", named, want, err)
		}
	}
	check(desired(append([]string{good}, bad...)...), want...)
	check(desired(good, other), "other")
	r.apply(desired(good))
	check(desired(append([]string{good}, bad...)...), want...)
	check(desired(good, other), "other")
	check(desired(good, `{"email":"odd","id":"`+bobID+`","flow":"xtls-rprx-visoin"}`), "odd")
	check(desired(good, `{"email":"unknown","id":"`+bobID+`","flo":""}`), "unknown")
	r.apply(desired(good, fmt.Sprintf(`{"email":"bob","id":%q}`, bobID)))
}
