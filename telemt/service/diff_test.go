package service

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

const (
	alice   = `{"id":"alice","secret":"` + secret + `"}`
	bob     = `{"id":"bob","secret":"` + otherSecret + `"}`
	another = "fedcba9876543210fedcba9876543210"
)

// desired has one inbound with these members, and these further members of the service.
func desired(t *testing.T, inbound, clients, service string) Desired {
	t.Helper()
	s, err := Parse(json.RawMessage(fmt.Sprintf(
		`{"inbounds":[{"nodeProtocolId":7,"tag":"m","modes":{"tls":true},%s,"clients":[%s]}]%s}`, inbound, clients, service)))
	if err != nil {
		t.Fatal(err)
	}
	return s.ByTag()["m"]
}

func TestDiff(t *testing.T) {
	before := desired(t, `"port":1`, alice, "")
	for name, c := range map[string]struct {
		to   Desired
		want Change
	}{
		"the same":              {desired(t, `"port":1`, alice, ""), ChangeNone},
		"another public host":   {desired(t, `"port":1,"publicHost":"node.example"`, alice, ""), ChangeNone},
		"a client more":         {desired(t, `"port":1`, alice+","+bob, ""), ChangeLive},
		"no client":             {desired(t, `"port":1`, "", ""), ChangeLive},
		"another secret":        {desired(t, `"port":1`, `{"id":"alice","secret":"`+another+`"}`, ""), ChangeLive},
		"a limit":               {desired(t, `"port":1`, `{"id":"alice","secret":"`+secret+`","limitIps":1}`, ""), ChangeLive},
		"a live key of access":  {desired(t, `"port":1`, alice, `,"advanced":{"access":{"user_max_unique_ips_window_secs":60}}`), ChangeLive},
		"another key of access": {desired(t, `"port":1`, alice, `,"advanced":{"access":{"replay_check_len":1}}`), ChangeReload},
		"a TLS domain":          {desired(t, `"port":1,"tlsDomains":["a.example"]`, alice, ""), ChangeReload},
		"a domain and a client": {desired(t, `"port":1,"tlsDomains":["a.example"]`, alice+","+bob, ""), ChangeReload},
		"an upstream":           {desired(t, `"port":1`, alice, `,"upstreams":[{"type":"direct","interface":"lo"}]`), ChangeReload},
		"another port":          {desired(t, `"port":2,"tlsDomains":["a.example"]`, bob, ""), ChangeRestart},
		"another address":       {desired(t, `"port":1,"listen":"127.0.0.1"`, alice, ""), ChangeRestart},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Diff(before, c.to); got != c.want {
				t.Errorf("Diff is %d, want %d", got, c.want)
			}
			if back := Diff(c.to, before); back != c.want {
				t.Errorf("Diff in the other direction is %d, want %d", back, c.want)
			}
		})
	}
}

func TestUsersWhoseSessionsEnd(t *testing.T) {
	from := desired(t, `"port":1`, alice+","+bob, "").Inbound
	name := func(id string) string { return from.UserName(Client{ID: id}) }
	for label, c := range map[string]struct {
		clients          string
		removed, changed []string
	}{
		"the same":       {clients: alice + "," + bob},
		"another order":  {clients: bob + "," + alice},
		"bob is removed": {clients: alice, removed: []string{name("bob")}},
		"another secret": {clients: alice + `,{"id":"bob","secret":"` + another + `"}`, changed: []string{name("bob")}},
		"an expiry":      {clients: bob + `,{"id":"alice","secret":"` + secret + `","expiresAt":"2030-01-01T00:00:00Z"}`},
		"a limit":        {clients: bob + `,{"id":"alice","secret":"` + secret + `","limitIps":1}`},
		"a new client":   {clients: alice + "," + bob + `,{"id":"carol","secret":"00000000000000000000000000000003"}`},
	} {
		t.Run(label, func(t *testing.T) {
			to := desired(t, `"port":1`, c.clients, "").Inbound
			if got := RemovedUsers(from, to); !slices.Equal(got, c.removed) {
				t.Errorf("removed are %v, want %v", got, c.removed)
			}
			if got := ChangedCredentials(from, to); !slices.Equal(got, c.changed) {
				t.Errorf("changed credentials are %v, want %v", got, c.changed)
			}
		})
	}
}
