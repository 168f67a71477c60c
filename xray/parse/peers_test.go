package parse_test

import (
	"strings"
	"testing"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A peer's private key, which panels send, is not kept.
func TestPrivateKeysOfPeersAreNotKept(t *testing.T) {
	peer := func(more string) state.State {
		t.Helper()
		s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"wireguard","settings":{"peers":[{"email":"a","publicKey":"b"` + more + `}]}}]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	without := peer("")
	for _, name := range []string{"privateKey", "PrivateKey"} {
		with := peer(`,"` + name + `":"hush-hush"`)
		if account := string(with.Inbounds["in-1"].Clients[0].Account); strings.Contains(account, "hush") || strings.Contains(string(with.Inbounds["in-1"].Config), "hush") {
			t.Errorf("%s: account %s", name, account)
		}
		if ops := state.Diff(without, with); len(ops) > 0 {
			t.Errorf("%s makes another client: %s", name, xraytest.OperationsText(ops))
		}
	}
}
