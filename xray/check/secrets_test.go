package check

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nodeagent/xray/state"
	"nodeagent/xray/xraytest"
)

// A client without a secret would let everybody in. One that already runs stays, and does not
// refuse a change of other clients.
func TestClientsWithoutASecret(t *testing.T) {
	const good = `{"email":"good","password":"hush-hush","auth":"hush-hush","user":"good","pass":"hush-hush"}`
	accounts := func(protocol string) func(string) string {
		return func(list string) string {
			return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{"auth":"password","accounts":[%s]}}]}`, protocol, list)
		}
	}
	clients := func(protocol string) func(string) string {
		return func(list string) string {
			return fmt.Sprintf(`{"inbounds":[{"tag":"in-1","port":1,"protocol":%q,"settings":{"clients":[%s]}}]}`, protocol, list)
		}
	}
	for name, c := range map[string]struct {
		config func(list string) string
		odd    string
		says   string
	}{
		"trojan without":          {clients("trojan"), `{"email":"a"}`, `client "a" has no password`},
		"trojan with null":        {clients("trojan"), `{"email":"a","password":null}`, `client "a" has no password`},
		"trojan with an empty":    {clients("trojan"), `{"email":"a","password":""}`, `client "a" has no password`},
		"shadowsocks":             {clients("shadowsocks"), `{"email":"a","method":"aes-128-gcm"}`, `client "a" has no password`},
		"hysteria":                {clients("hysteria"), `{"email":"a","auth":""}`, `client "a" has no auth`},
		"hysteria with another's": {clients("hysteria"), `{"email":"a","password":"b"}`, `client "a" has no auth`},
		"vless has ids":           {clients("vless"), `{"email":"a","id":"` + xraytest.UUIDA + `"}`, ""},
		"http without pass":       {accounts("http"), `{"user":"a"}`, "accounts[1] has no pass"},
		"http with null":          {accounts("http"), `{"user":"a","pass":null}`, "accounts[1] has no pass"},
		"http without anything":   {accounts("http"), `{}`, "accounts[1] has no user"},
		"http that is null":       {accounts("http"), `null`, "accounts[1] has no user"},
		"socks without pass":      {accounts("socks"), `{"user":"a","pass":""}`, "accounts[1] has no pass"},
		"mixed without user":      {accounts("mixed"), `{"pass":"a"}`, "accounts[1] has no user"},
		"trojan in capitals":      {clients("trojan"), `{"email":"a","Password":"b"}`, `client "a": the member "Password" has to be written "password"`},
		"an email in capitals":    {clients("trojan"), `{"Email":"a","password":"b"}`, `the member "Email" has to be written "email"`},
		"hysteria in capitals":    {clients("hysteria"), `{"email":"a","auth":"b","AUTH":"c"}`, `"AUTH" has to be written "auth"`},
		"limits in capitals":      {clients("trojan"), `{"email":"a","password":"b","LimitIps":1}`, `"LimitIps" has to be written "limitIps"`},
		"an id in capitals":       {clients("vless"), `{"email":"a","id":"` + xraytest.UUIDA + `","ID":"` + xraytest.UUIDA + `"}`, `"ID" has to be written "id"`},
		"reverse in capitals":     {clients("vless"), `{"email":"a","id":"` + xraytest.UUIDA + `","Reverse":{"tag":"r"}}`, `"Reverse" has to be written "reverse"`},
		"a user in capitals":      {accounts("http"), `{"User":"a","pass":"b"}`, `accounts[1]: the member "User" has to be written "user"`},
		"an account's email":      {accounts("socks"), `{"user":"a","pass":"b","EMail":"c"}`, `accounts[1]: the member "EMail" has to be written "email"`},
		"both":                    {accounts("mixed"), `{"user":"a","pass":"b"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			parse := func(list string) state.State {
				t.Helper()
				s, err := xraytest.Parse(c.config(list))
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			check := func(from, to state.State) error {
				return errors.Join(Clients(from, to), Changed(from, to, time.Now()))
			}
			first := good
			switch config := c.config(""); {
			case strings.Contains(config, `"hysteria"`):
				first = `{"email":"good","auth":"hush-hush"}`
			case strings.Contains(config, `"clients"`):
				first = `{"email":"good","password":"hush-hush"}`
			}
			if strings.Contains(c.odd, `"id"`) {
				first = `{"email":"good","id":"` + xraytest.UUIDB + `"}`
			}
			one, both := parse(first), parse(first+","+c.odd)
			for _, from := range []state.State{{}, one} {
				err := check(from, both)
				if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
					t.Errorf("got %v, want an error with %q", err, c.says)
				}
			}
			more := strings.NewReplacer("good", "more", "hush-hush", "other", xraytest.UUIDB, "33333333-3333-4333-8333-333333333333").Replace(first)
			if err := check(both, parse(more+","+first+","+c.odd)); err != nil {
				t.Errorf("another client is refused because of a running one: %v", err)
			}
			if err := check(both, one); err != nil {
				t.Errorf("the removal of a client is refused: %v", err)
			}
		})
	}
	s, err := xraytest.Parse(`{"inbounds":[{"tag":"in-1","port":1,"protocol":"trojan","settings":{"clients":[{"email":"a"}]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if err := Clients(state.State{}, s); err == nil {
		t.Error("a change of clients alone is not checked")
	}
}
