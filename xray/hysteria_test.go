package xray_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// hysteriaState has one Hysteria inbound on a port whose transport has an auth of its own,
// shared, and the clients, by their auth.
func (r *rig) hysteriaState(port int, certificate, key string, auths ...string) state.State {
	r.t.Helper()
	clients := []string{}
	for _, auth := range auths {
		clients = append(clients, fmt.Sprintf(`{"email":%q,"auth":%[1]q}`, auth))
	}
	s, err := parseReaching(json.RawMessage(fmt.Sprintf(`{"inbounds":[{"tag":"in-1","listen":"127.0.0.1","port":%d,"protocol":"hysteria","settings":{"version":2,"clients":[%s]},
		"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2,"auth":"shared"},"security":"tls","tlsSettings":{"certificates":[{"certificate":[%q],"key":[%q]}]}}}]}`,
		port, strings.Join(clients, ","), certificate, key)), func(string) bool { return true })
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range s.Inbounds["in-1"].Clients {
		s.Inbounds["in-1"].Clients[i].Slot = 2
	}
	return s
}

// Where the transport has an auth, the inbound's clients alone are let in: also after the
// last of them has left, and also where a client's auth is a UUID that chooses a route.
func TestHysteriaLetsItsClientsAloneIn(t *testing.T) {
	r := newRig(t)
	port := freePort(t)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	block, _ := pem.Decode([]byte(certificate))
	pin := sha256.Sum256(block.Bytes)
	enter := func(auth string) error {
		conn, err := r.dialOutbound(fmt.Sprintf(`{"protocol":"hysteria","settings":{"version":2,"address":"127.0.0.1","port":%d},
			"streamSettings":{"network":"hysteria","hysteriaSettings":{"version":2,"auth":%q},"security":"tls","tlsSettings":{"serverName":"site.test","pinnedPeerCertSha256":%q}}}`,
			port, auth, hex.EncodeToString(pin[:])))
		if err != nil {
			return err
		}
		return use(conn)
	}
	routed := bobID[:14] + "0001" + bobID[18:] // bytes 6 and 7
	r.apply(r.hysteriaState(port, certificate, key, bobID))
	for _, auth := range []string{bobID, routed} {
		if err := enter(auth); err != nil {
			t.Errorf("bob as %s: %v", auth, err)
		}
	}
	if err := enter("shared"); err == nil {
		t.Error("the transport's auth lets in who is no client")
	}
	if slot, err := r.counters.Slot(2); err != nil || slot.Up.Load() < 2*uint64(len("there and back")) {
		t.Errorf("bob's bytes are not counted: %v", err)
	}
	r.apply(r.hysteriaState(port, certificate, key))
	for _, auth := range []string{"shared", bobID} {
		if err := enter(auth); err == nil {
			t.Errorf("the auth %q lets in, and there is no client", auth)
		}
	}
}

// A removed client that is silent has no stream. Its connection ends all the same, and those of the other
// clients go on.
func TestARemovedClientOfHysteriaThatIsSilent(t *testing.T) {
	r := newRig(t)
	port := freePort(t)
	certificate, key := xraytest.CertificatePair(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	r.apply(r.hysteriaState(port, certificate, key, "alice", "bob"))
	alice, bob := enterHysteria(t, port, "alice"), enterHysteria(t, port, "bob")
	r.apply(r.hysteriaState(port, certificate, key, "bob"))
	select {
	case <-alice.conn.Context().Done():
	case <-time.After(patience):
		t.Error("the connection of the removed client is open")
	}
	if bob.conn.Context().Err() != nil {
		t.Error("the connection of the client that stays has ended")
	}
}
