package state_test

import (
	"encoding/json"
	"slices"
	"testing"

	"nodeagent/xray/parse"
	"nodeagent/xray/state"
)

// The worker learns that an account belongs to no client any more.
func TestAccountBecomesUnattributed(t *testing.T) {
	parse := func(known string) state.State {
		s, err := parse.Service(json.RawMessage(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"socks","settings":{"accounts":[
			{"email":"x","user":"u1","pass":"p"},{"email":"x","user":"u2","pass":"q"}]}}]}`), func(key string) bool { return key == "x" || key == known })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ops := state.Diff(parse("u2"), parse(""))
	if len(ops) != 1 || ops[0].Kind != state.OpReplaceInbound || !slices.Equal(ops[0].Inbound.Unattributed, []string{"u2"}) {
		t.Errorf("operations %+v", ops)
	}
}
