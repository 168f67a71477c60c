package service

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nodeagent/internal/fault"
)

// A part that is wrong is refused by itself, and what it says of its clients is known.
func TestParts(t *testing.T) {
	client := func(id, secret string) string { return fmt.Sprintf(`{"id":%q,"secret":%q}`, id, secret) }
	inbound := func(tag string, port int, members ...string) string {
		return fmt.Sprintf(`{"nodeProtocolId":7,"tag":%q,"port":%d,"modes":{"tls":true},%s}`, tag, port, strings.Join(members, ","))
	}
	clients := func(all ...string) string { return `"clients":[` + strings.Join(all, ",") + `]` }
	good := inbound("good", 1, clients(client("alice", secret)))
	many := make([]string, 0, MaxClients+2)
	for i := range MaxClients + 2 {
		many = append(many, client(fmt.Sprintf("c%d", i), fmt.Sprintf("%032x", i)))
	}
	for name, c := range map[string]struct {
		inbounds, rest string
		refused        string // kind, tag and client of each
		served         string // each inbound with its clients' number
		unreadable     string // the same of those that were refused
		whole          bool
	}{
		"all is well":               {inbounds: good, served: "good:1"},
		"a secret cut short":        {inbounds: inbound("a", 2, clients(client("x", "01"), client("y", secret))), refused: "client a x", served: "a:1"},
		"a client that is a text":   {inbounds: inbound("a", 2, clients(`"x"`, client("y", secret))), refused: "client a ", served: "a:1"},
		"a secret that is a number": {inbounds: inbound("a", 2, clients(`{"id":"x","secret":7}`, client("y", secret))), refused: "client a x", served: "a:1"},
		"an unknown member of one":  {inbounds: inbound("a", 2, clients(`{"id":"x","secret":"`+secret+`","quota":1}`, client("y", secret))), refused: "client a x", served: "a:1"},
		"one secret twice":          {inbounds: inbound("a", 2, clients(client("x", secret), client("y", strings.ToUpper(secret)))), refused: "client a y", served: "a:1"},
		"one id twice":              {inbounds: inbound("a", 2, clients(client("x", secret), client("x", otherSecret))), refused: "client a x", served: "a:1"},
		"too many clients":          {inbounds: inbound("a", 2, clients(many...)), refused: "client a c4096; client a c4097", served: "a:4096"},
		"an inbound without a mode": {inbounds: good + `,{"nodeProtocolId":8,"tag":"a","port":2,` + clients(client("x", secret)) + `}`, refused: "mtproto a ", served: "good:1", unreadable: "a:1"},
		"an unknown member":         {inbounds: good + "," + inbound("a", 2, `"prot":1`, clients(client("x", secret))), refused: "mtproto a ", served: "good:1", unreadable: "a:1"},
		"clients that are no list":  {inbounds: good + "," + inbound("a", 2, `"clients":7`), refused: "mtproto a ", served: "good:1"},
		"a port twice":              {inbounds: good + "," + inbound("a", 1, clients()), refused: "mtproto a ", served: "good:1", unreadable: "a:0"},
		"a tag twice":               {inbounds: good + "," + inbound("good", 2, clients()), refused: "mtproto good ", served: "good:1"},
		"no tag":                    {inbounds: good + `,{"port":2}`, refused: "mtproto  ", served: "good:1"},
		"an upstream":               {inbounds: good, rest: `,"upstreams":[{"type":"direct"},{"type":"tor"}]`, refused: "upstream  ", served: "good:1"},
		"advanced":                  {inbounds: good, rest: `,"advanced":{"server":{"port":1}}`, refused: "mtproto  ", unreadable: "good:1", whole: true},
		"an unknown shared member":  {inbounds: good, rest: `,"upstrems":[]`, refused: "mtproto  ", unreadable: "good:1", whole: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := Parts(json.RawMessage(`{"inbounds":[` + c.inbounds + `]` + c.rest + `}`))
			var refused, served, unreadable []string
			for _, f := range r.Refused {
				refused = append(refused, fmt.Sprintf("%s %s %s", f.Kind, f.Tag, f.Client))
				if f.Code != fault.Invalid || f.Retry || strings.Contains(f.Message, secret) {
					t.Errorf("the fault %+v", f)
				}
			}
			for _, in := range r.Service.Inbounds {
				served = append(served, fmt.Sprintf("%s:%d", in.Tag, len(in.Clients)))
			}
			for tag, in := range r.Unreadable {
				unreadable = append(unreadable, fmt.Sprintf("%s:%d", tag, len(in.Clients)))
			}
			if got := strings.Join(refused, "; "); got != c.refused {
				t.Errorf("refused are %q, want %q", got, c.refused)
			}
			if got := strings.Join(served, " "); got != c.served {
				t.Errorf("served are %q, want %q", got, c.served)
			}
			if got := strings.Join(unreadable, " "); got != c.unreadable || r.Whole != c.whole {
				t.Errorf("unreadable are %q, whole %v, want %q, %v", got, r.Whole, c.unreadable, c.whole)
			}
		})
	}
}

// Nothing that Core sends makes Parts panic, serve a client twice, or tell a secret.
func FuzzParts(f *testing.F) {
	for _, service := range cases {
		f.Add([]byte(service))
	}
	f.Add([]byte(`{"inbounds":[{"tag":"a","clients":[7]},null]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := Parts(raw)
		for _, in := range r.Service.Inbounds {
			if err := in.validate(); err != nil || in.Tag == "" {
				t.Errorf("inbound %+v is taken: %v", in, err)
			}
			ids := map[string]bool{}
			for _, c := range in.Clients {
				if ids[c.ID] || c.validate() != nil {
					t.Errorf("client %+v is taken", c)
				}
				ids[c.ID] = true
			}
		}
	})
}
