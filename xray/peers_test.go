package xray

import (
	"strings"
	"testing"
)

// A peer's private key, which panels send, is kept nowhere.
func TestPrivateKeysOfPeersAreNotKept(t *testing.T) {
	peer := func(more string) State {
		t.Helper()
		s, err := parseText(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"wireguard","settings":{"peers":[{"email":"a","publicKey":"b"` + more + `}]}}]}`)
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
		if ops := Diff(without, with); len(ops) > 0 {
			t.Errorf("%s makes another client: %s", name, text(ops))
		}
	}
}
