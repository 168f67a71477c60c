package check

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/members"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// panelState parses a document of one inbound, without the ports.
func panelState(t *testing.T, inbound string) state.State {
	t.Helper()
	result, err := parse.Parts(json.RawMessage(`{"inbounds":[`+inbound+`]}`), func(string) bool { return true })
	if err != nil || len(result.Refused) > 0 {
		t.Fatalf("%s: %v, %v", inbound, err, result.Refused)
	}
	return result.State
}

// Every member that panels write and Xray ignores is taken, with one warning for the inbound.
func TestMembersOfPanelsAreTaken(t *testing.T) {
	for _, c := range []struct{ protocol, member, settings, stream, more string }{
		{"vless", "streamSettings.externalProxy", ``, `"externalProxy":[{"dest":"a","port":1,"forceTls":"same"}]`, ``},
		{"vless", "streamSettings.realitySettings.settings", ``, `"realitySettings":{"settings":{"publicKey":"a","spiderX":"/"}}`, ``},
		{"vless", "streamSettings.realitySettings.minClient", ``, `"realitySettings":{"minClient":"1"}`, ``},
		{"vless", "streamSettings.realitySettings.maxClient", ``, `"realitySettings":{"maxClient":"1"}`, ``},
		{"trojan", "streamSettings.tlsSettings.settings", ``, `"tlsSettings":{"settings":{"allowInsecure":false,"fingerprint":"chrome"}}`, ``},
		{"shadowsocks", "settings.ivCheck", `"ivCheck":false`, ``, ``},
		{"vless", "settings.selectedAuth", `"selectedAuth":"x"`, ``, ``},
		{"vless", "settings.encryption", `"encryption":"none"`, ``, ``},
		{"vmess", "settings.disableInsecureEncryption", `"disableInsecureEncryption":true`, ``, ``},
		{"vmess", "settings.detour", `"detour":{"to":"x"}`, ``, ``},
		{"dokodemo-door", "settings.timeout", `"timeout":30`, ``, ``},
		{"vless", "streamSettings.sockopt.tcpNoDelay", ``, `"sockopt":{"tcpNoDelay":true}`, ``},
		{"hysteria", "streamSettings.hysteriaSettings.protocol", ``, `"hysteriaSettings":{"protocol":"x"}`, ``},
		{"vless", "", ``, ``, `,"sniffing":{"ipsExcluded":["10.0.0.0/8"]}`}, // Xray has it
		{"vless", "", ``, `"kcpSettings":{"cwndMultiplier":1}`, ``},         // Xray has it
		{"vless", "", ``, ``, `,"trustedProxies":["192.0.2.1"]`},            // node-agent has it
		{"vless", "allocate", ``, ``, `,"allocate":{"strategy":"always"}`},
	} {
		s := panelState(t, fmt.Sprintf(`{"tag":"in-1","port":1,"protocol":%q,"settings":{%s},"streamSettings":{%s}%s}`, c.protocol, c.settings, c.stream, c.more))
		in := s.Inbounds["in-1"]
		if err := members.Inbound(&in); err != nil {
			t.Errorf("%s: %v", c.member, err)
		}
		var got []string
		for _, warning := range Warnings(s, time.Now()) {
			if strings.Contains(warning, "not used by Xray") {
				got = append(got, warning)
			}
		}
		want := fmt.Sprintf("inbound %q: %s is not used by Xray: leave it out", "in-1", c.member)
		if c.member == "" && len(got) > 0 || c.member != "" && (len(got) != 1 || got[0] != want) {
			t.Errorf("%s: warnings %q, want %q", c.member, got, want)
		}
	}
}

// The members that a panel keeps in its clients are taken with one warning, and a change of
// them is no change of the client.
func TestClientsOfPanelsAreTaken(t *testing.T) {
	clients := func(updated int) string {
		return fmt.Sprintf(`{"tag":"in-1","port":1,"protocol":"vless","settings":{"decryption":"none","clients":[
			{"id":%q,"email":"alice","limitIp":1,"totalGB":5,"expiryTime":0,"enable":true,"tgId":"","subId":"x","comment":"","reset":0,"created_at":1,"updated_at":%d},
			{"id":%q,"email":"bob","limitIp":0,"totalGB":0}]}}`, xraytest.UUIDA, updated, xraytest.UUIDB)
	}
	before, after := panelState(t, clients(1)), panelState(t, clients(2))
	if err := members.Clients("in-1", "vless", before.Inbounds["in-1"].Clients.Values()); err != nil {
		t.Error(err)
	}
	if ops := state.Diff(before, after); len(ops) > 0 {
		t.Errorf("a panel's note makes operations: %v", ops)
	}
	var warnings []string
	for _, warning := range Warnings(before, time.Now()) {
		if strings.Contains(warning, "members of a panel") {
			warnings = append(warnings, warning)
		}
	}
	if len(warnings) != 1 {
		t.Errorf("warnings %q", warnings)
	}
}

// One message names all members that Xray does not have, in Xray's words where it has removed
// one.
func TestAllUnknownMembersInOneMessage(t *testing.T) {
	s := panelState(t, `{"tag":"in-1","port":1,"protocol":"trojan","lsten":"::","settings":{"fallback":[]},"streamSettings":{"sockets":{},
		"tlsSettings":{"verifyPeerCertInNames":["a"],"serverNames":"x"}}}`)
	in := s.Inbounds["in-1"]
	err := members.Inbound(&in)
	for _, part := range []string{
		`"lsten"; did you mean "listen"?`, `"fallback"; did you mean "fallbacks"?`, `"sockets"`, `"serverNames"; did you mean "serverName"?`,
		`The feature "verifyPeerCertInNames" has been removed and migrated to "verifyPeerCertByName"`,
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
	if strings.Contains(fmt.Sprint(err), `no member "verifyPeerCertInNames"`) {
		t.Errorf("%v takes a removed member for an unknown one", err)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf(`"zz%d":1`, i))
	}
	s = panelState(t, `{"tag":"in-1","port":1,"protocol":"vless",`+strings.Join(many, ",")+`}`)
	in = s.Inbounds["in-1"]
	if err := members.Inbound(&in); err == nil || !strings.HasSuffix(err.Error(), "; and 80 more") {
		t.Errorf("got %v", err)
	}
}

// A client is named by its place in the list and by its email, but not by its secret.
func TestUnknownMembersOfAClient(t *testing.T) {
	s := panelState(t, fmt.Sprintf(`{"tag":"in-1","port":1,"protocol":"trojan","settings":{"clients":[
		{"password":"hush","email":"alice"},{"password":"other","email":"bob","colour":"red","size":1},{"password":"third","email":"carol","colour":"red","size":1},{"password":%[1]q,"email":%[1]q,"colour":"red"}]}}`, xraytest.UUIDA))
	err := checkClientMembers(state.State{}, s)
	for _, part := range []string{`inbound "in-1", clients[1] ("bob"): Xray has no member "colour"`, `clients[1] ("bob"): Xray has no member "size"`, `clients[2] ("carol"): Xray has no member "size"`, `clients[3]: Xray has no member "colour"`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %s", err, part)
		}
	}
	if strings.Contains(fmt.Sprint(err), xraytest.UUIDA) {
		t.Errorf("%v has a secret", err)
	}
}

// An empty listen means all addresses.
func TestAnEmptyListen(t *testing.T) {
	s := panelState(t, `{"tag":"in-1","port":1,"listen":"","protocol":"vless","settings":{"decryption":"none"}}`)
	without := panelState(t, `{"tag":"in-1","port":1,"protocol":"vless","settings":{"decryption":"none"}}`)
	if ops := state.Diff(without, s); len(ops) > 0 {
		t.Errorf("an empty listen is something else than none: %v", ops)
	}
}
