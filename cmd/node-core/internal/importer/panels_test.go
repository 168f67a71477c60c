package importer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/coreapi"
)

// noon is when the tests import: the fixtures' ends are after it, but frank's.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

var options = Options{Node: "fra1", Now: noon}

func threeXUIRead(t *testing.T) Read {
	t.Helper()
	r, err := ThreeXUI(t.Context(), "testdata/3x-ui/x-ui.db", options)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func marzbanRead(t *testing.T, o Options) Read {
	t.Helper()
	r, err := Marzban(t.Context(), "testdata/marzban/db.sqlite3", "testdata/marzban/xray_config.json", o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var remnawaveFiles = []string{"testdata/remnawave/users.json", "testdata/remnawave/config-profiles.json", "testdata/remnawave/internal-squads.json", "testdata/remnawave/hosts.json"}

func userNamed(t *testing.T, r Read, name string) (coreapi.ImportUser, coreapi.ImportSubscription) {
	t.Helper()
	at := slices.IndexFunc(r.Import.Users, func(u coreapi.ImportUser) bool { return u.Name == name })
	if at < 0 {
		t.Fatalf("there is no user %q", name)
	}
	return r.Import.Users[at], r.Import.Users[at].Subscriptions[0]
}

func inboundOf(t *testing.T, r Read, tag string) coreapi.ImportProtocol {
	t.Helper()
	at := slices.IndexFunc(r.Import.Protocols, func(p coreapi.ImportProtocol) bool { return p.Tag == tag })
	if at < 0 {
		t.Fatalf("there is no inbound %q", tag)
	}
	return r.Import.Protocols[at]
}

func leftOf(r Read, kind, name string) bool {
	return slices.ContainsFunc(r.Left, func(l Left) bool { return l.Kind == kind && l.Name == name && l.Reason != "" })
}

// Core gets all that 3x-ui has about a user.
func TestThreeXUI(t *testing.T) {
	r := threeXUIRead(t)
	user, sub := userNamed(t, r, "user2")
	if user.Note == nil || *user.Note != `a comment, with "quotes"` || !strings.HasPrefix(user.Origin, "3x-ui dca2b59d-8fac-4168-9c71-d4e4818d37c6 ") {
		t.Errorf("user2 is %+v", user)
	}
	if sub.UUID != "00000002-1111-4111-8111-111111111111" || sub.LimitBytes != 21474836480 || sub.LimitIPs != 2 || sub.UsedUp != 246913578 || sub.UsedDown != 1975308642 || sub.ExpiresAt != nil || sub.Credentials != nil {
		t.Errorf("the subscription of user2 is %+v", sub)
	}
	if _, sub := userNamed(t, r, "user1"); sub.ExpiresAt == nil || sub.ExpiresAt.UnixMilli() != 1798509887726 || sub.CreatedAt.UnixMilli() != 1795917887000 {
		t.Errorf("the subscription of user1 is %+v", sub)
	}
	if _, sub := userNamed(t, r, "user4"); !sub.Disabled {
		t.Error("user4 is disabled, and would be let in")
	}
	if p := inboundOf(t, r, "in-30443-tcp"); p.Flow != "xtls-rprx-vision" || p.Note != "Reality main" || strings.Contains(string(p.Inbound), "clients") || strings.Contains(string(p.Inbound), "publicKey") {
		t.Errorf("the REALITY inbound is %+v, %s", p, p.Inbound)
	}
	if p := inboundOf(t, r, "in-30086-tcp"); !p.Disabled {
		t.Error("the disabled inbound would serve")
	}
	if p := inboundOf(t, r, "in-30080-tcp"); len(p.Hosts) != 1 || *p.Hosts[0].Address != "cdn.example.com" || *p.Hosts[0].Port != 443 || *p.Hosts[0].Security != "tls" {
		t.Errorf("the hosts behind the CDN are %+v", p.Hosts)
	}
	_, account := userNamed(t, r, "su@in-30087-tcpudp")
	if c := account.Credentials; len(c) != 1 || c[0].ID != "su" || c[0].Password != "sp" || c[0].Protocol != "mixed" {
		t.Errorf("the account has %+v", c)
	}
	// Nobody gets an inbound that the panel did not give.
	if g := r.Import.Groups[slices.IndexFunc(r.Import.Groups, func(g coreapi.ImportGroup) bool { return g.Name == sub.Group })]; !slices.Equal(g.Tags, []string{"in-30443-tcp"}) {
		t.Errorf("user2 gets %v", g.Tags)
	}
	if !leftOf(r, "renewal", "user3") || !leftOf(r, "limit", "in-30081-tcp") {
		t.Errorf("left are %+v", r.Left)
	}
}

// Marzban's users keep what they have of each protocol, and their state.
func TestMarzban(t *testing.T) {
	r := marzbanRead(t, options)
	_, bob := userNamed(t, r, "bob")
	byProtocol := map[string]coreapi.ImportCredential{}
	for _, c := range bob.Credentials {
		byProtocol[c.Protocol] = c
	}
	if bob.UUID != "00000002-2222-4222-8222-222222222222" || byProtocol["vmess"].ID != "00000022-2222-4222-8222-222222222222" || byProtocol["trojan"].Password != "bobTrojan" ||
		byProtocol["shadowsocks"].Password != "bobShadow" || byProtocol["vless"].Flow != "xtls-rprx-vision" || byProtocol["vless"].Tag != "VLESS REALITY" {
		t.Errorf("bob is %s with %+v", bob.UUID, bob.Credentials)
	}
	_, alice := userNamed(t, r, "alice")
	if alice.Credentials != nil || alice.Period != "rolling-month" || alice.LimitBytes != 53687091200 || alice.UsedDown != 123456789012 || alice.ExpiresAt.Unix() != 1801267200 {
		t.Errorf("alice has %+v", alice)
	}
	_, carol := userNamed(t, r, "carol_hold")
	if carol.ExpiresAfterSeconds != 2592000 || carol.ExpiresAt != nil || !leftOf(r, "on-hold timeout", "carol_hold") {
		t.Errorf("carol has %+v", carol)
	}
	if _, dave := userNamed(t, r, "dave"); !dave.Disabled {
		t.Error("dave is disabled, and would be let in")
	}
	if h := inboundOf(t, r, "VMESS WS").Hosts; len(h) != 1 || *h[0].Remark != "🚀 Marz ({user}) [VMESS - ws]" || *h[0].Address != "" {
		t.Errorf("the hosts are %s %s", *h[0].Remark, *h[0].Address)
	}
	if got := marzbanRead(t, Options{Node: "fra1", Prefix: "m-", Now: noon}).Import.Users[0]; got.Name != "m-alice" || got.Origin != r.Import.Users[0].Origin {
		t.Errorf("with a prefix, alice is %q of %q", got.Name, got.Origin)
	}
}

// The answer of Marzban's API says of a user what the database says.
func TestMarzbanAnswer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.json")
	err := os.WriteFile(file, []byte(`{"users": [{"username": "bob", "status": "active", "used_traffic": 5, "lifetime_used_traffic": 7, "data_limit": 10, "expire": null,
		"data_limit_reset_strategy": "year", "created_at": "2026-01-02T03:04:05", "proxies": {"trojan": {"password": "bobTrojan", "flow": ""}, "vmess": {"id": "00000022-2222-4222-8222-222222222222"}},
		"inbounds": {"trojan": ["TROJAN TCP"], "vmess": ["VMESS WS"]}},
		{"username": "77", "status": "on_hold", "on_hold_expire_duration": 60, "proxies": {}, "inbounds": {}}], "total": 2}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Marzban(t.Context(), file, "testdata/marzban/xray_config.json", options)
	if err != nil {
		t.Fatal(err)
	}
	_, bob := userNamed(t, r, "bob")
	if bob.UUID != "00000022-2222-4222-8222-222222222222" || len(bob.Credentials) != 1 || bob.UsedDown != 5 || bob.BytesDown != 7 || bob.CreatedAt.Year() != 2026 || !leftOf(r, "period", "bob") {
		t.Errorf("bob has %+v", bob)
	}
	named, sub := userNamed(t, r, "user-77") // a number would be taken for an id
	if sub.ExpiresAfterSeconds != 60 || !strings.HasSuffix(sub.Group, ": none") || named.Origin == "" {
		t.Errorf("77 has %+v", sub)
	}
}

func TestRemnawave(t *testing.T) {
	r, err := Remnawave(remnawaveFiles, "", options)
	if err != nil {
		t.Fatal(err)
	}
	user, grace := userNamed(t, r, "grace")
	if user.Contact["telegram"] != "987654" || user.Contact["email"] != "grace@example.com" || *user.Note != "pays by card" || user.Origin != "remnawave  d0000000-0000-4000-8000-000000000001" {
		t.Errorf("grace is %+v", user)
	}
	if grace.Period != "rolling-month" || grace.UsedDown != 500000000 || grace.BytesDown != 2000000000 || grace.PeriodStart == nil || len(grace.Credentials) != 2 {
		t.Errorf("grace has %+v", grace)
	}
	if _, ivan := userNamed(t, r, "ivan"); !ivan.Disabled {
		t.Error("ivan is disabled, and would be let in")
	}
	if !leftOf(r, "device limit", "heidi") {
		t.Errorf("left are %+v", r.Left)
	}
	if _, err := Remnawave(remnawaveFiles, "another", options); err == nil || !strings.Contains(err.Error(), "Default-Profile") {
		t.Errorf("another profile: %v", err)
	}
	if _, err := Remnawave(remnawaveFiles[:1], "", options); err == nil || !strings.Contains(err.Error(), "GET /api/config-profiles") {
		t.Errorf("without profiles: %v", err)
	}
}

// The same file gives the same import, byte for byte.
func TestSameFileSameImport(t *testing.T) {
	first, err := json.Marshal(threeXUIRead(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if again, _ := json.Marshal(threeXUIRead(t)); !bytes.Equal(first, again) {
			t.Fatalf("got\n%s\nand\n%s", first, again)
		}
	}
}

// Two clients that an inbound could not tell apart are not both on it, and names that Core does not
// take become others.
func TestPeopleThatDoNotFit(t *testing.T) {
	id := "00000001-1111-4111-8111-111111111111"
	vless := func(tag, id string) login {
		return login{tag: tag, Credential: coreapi.Credential{Protocol: "vless", ID: id}}
	}
	in := func(tag string) *inbound {
		return &inbound{tag: tag, protocol: "vless", config: map[string]any{}}
	}
	p := panel{kind: "test", inbounds: []*inbound{in("a"), in("b")}, people: []*person{
		{name: "first", uuids: []string{id}, logins: []login{vless("a", id)}},
		{name: "second", uuids: []string{id}, logins: []login{vless("a", strings.ToUpper(id)), vless("b", id)}},
		{name: strings.Repeat("é", 60), logins: []login{vless("a", "no uuid")}},
		{name: strings.Repeat("é", 60) + "x", logins: []login{vless("a", "this text is longer than thirty bytes")}},
		{name: "a\nb\x1b[31m"},
	}}
	r, err := p.finish(options)
	if err != nil {
		t.Fatal(err)
	}
	if !leftOf(r, "client", "second") || r.Import.Users[0].Subscriptions[0].UUID != id || r.Import.Users[1].Subscriptions[0].UUID != "" {
		t.Errorf("left are %+v", r.Left)
	}
	if c := r.Import.Users[1].Subscriptions[0].Credentials; len(c) != 1 || c[0].ID != id {
		t.Errorf("second has %+v: want the UUID on the inbound b", c)
	}
	if c := r.Import.Users[2].Subscriptions[0].Credentials; len(c) != 1 || c[0].ID != "no uuid" {
		t.Errorf("an id that is no UUID became %+v", c)
	}
	names := map[string]bool{}
	for _, u := range r.Import.Users {
		if len(u.Name) > maxName || names[u.Name] || strings.ContainsAny(u.Name, "\n\x1b") {
			t.Errorf("a user is named %q", u.Name)
		}
		names[u.Name] = true
	}
}
