package sublink

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/clientapps"
	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
	"nodeagent/coreclient/wire"
)

// everyKind are inbounds whose links have the credentials in every form: as they are, in base64 and
// escaped.
var everyKind = map[string]string{
	"vless":  `{"settings":{"decryption":"none"},"streamSettings":{"network":"ws","wsSettings":{"path":"/w"}}}`,
	"vmess":  `{"streamSettings":{"network":"grpc","grpcSettings":{"serviceName":"s"}}}`,
	"trojan": `{"streamSettings":{"security":"tls","tlsSettings":{"serverName":"a.example"}}}`,
	"socks":  `{}`, "http": `{}`, "hysteria": `{"streamSettings":{"network":"hysteria","security":"tls"}}`,
	"shadowsocks": `{"settings":{"method":"aes-256-gcm"}}`,
	"mtproto":     `{"tag":"m","listen":"0.0.0.0","port":443,"modes":{"tls":true,"secure":true,"classic":true},"tlsDomains":["www.example.com"]}`,
}

// builtinForms are all forms of a Core without templates and rules of an operator.
func builtinForms(t *testing.T) (all []*format) {
	t.Helper()
	apps, err := clientapps.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range apps.Names() {
		choice, _ := apps.Choose("", name)
		all = append(all, formatOf(choice))
	}
	return all
}

// A kept answer that is filled in is the same, to the byte, as one that is written for the
// subscription.
func TestFilledAnswers(t *testing.T) {
	node := corestore.Node{ID: 1, Name: "fra1", Host: "fra1.example", RegisteredAt: new(time.Now())}
	node.Enabled = true
	var protocols []corestore.Protocol
	add := func(name, config string) {
		tag := fmt.Sprint(name, "-", len(protocols))
		protocols = append(protocols, corestore.Protocol{ID: int64(len(protocols) + 1), NodeID: 1, Tag: tag, Protocol: name, Port: 443, Enabled: true, Config: json.RawMessage(config)})
	}
	for name, config := range everyKind {
		add(name, config)
	}
	for _, method := range []string{"2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm"} {
		add("shadowsocks", `{"settings":{"method":"`+method+`","password":"AAAAAAAAAAAAAAAAAAAAAA=="}}`)
	}
	named := []corestore.Host{{ProtocolID: 1, HostTerms: coreapi.HostTerms{Enabled: true, Remark: "{user} at {node}"}}, {ProtocolID: 2, HostTerms: coreapi.HostTerms{Enabled: true, Remark: "{region}"}}}
	for name, hosts := range map[string][]corestore.Host{"plain": nil, "with users' names": named} {
		plan := nodeconfig.NewPlan([]corestore.Node{node}, protocols, hosts, corestore.Group{Everything: true})
		for _, f := range builtinForms(t) {
			form, err := fill(plan, f)
			if err != nil {
				t.Fatal(err)
			}
			if kept := slices.ContainsFunc(form.pieces, func(p piece) bool { return p.alike }); !kept && hosts == nil {
				t.Errorf("nothing is kept of %s", f.name)
			}
			for n := range 300 {
				var sub corestore.Subscription
				sub.Rotate()
				if n%10 == 0 {
					sub.Credentials = []corestore.Credential{{Protocol: "trojan", Password: "own"}, {Protocol: "vless", ID: "00000000-0000-4000-8000-000000000001"}}
				}
				got, err := form.of(sub, "true")
				if err != nil {
					t.Fatal(err)
				}
				want, err := f.write(plan.For(sub, "true"))
				if err != nil || string(got) != string(want) {
					t.Fatalf("%s, %s, %s: got %s, %v, want %s", name, f.name, sub.UUID, got, err, want)
				}
			}
		}
	}
}

// A fetch after an edit sees the edit: what it gets is what a Core with an empty cache answers.
func TestEditsInvalidateTheCache(t *testing.T) {
	s := newSite(t)
	other := s.addNode("ams1", "trojan", everyKind["trojan"])
	protocols, err := s.store.Protocols(t.Context(), 0)
	s.must(err)
	for _, edit := range []struct {
		name string
		do   func() error
	}{
		{"a host", func() error {
			_, err := s.store.AddHost(t.Context(), corestore.Host{ProtocolID: protocols[0].ID, HostTerms: coreapi.HostTerms{Enabled: true, Remark: "{user}"}})
			return err
		}},
		{"other credentials", func() (err error) {
			s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
				sub.Rotate()
				return nil
			})
			return err
		}},
		{"a user's name", func() error {
			_, _, err := s.store.EditUser(t.Context(), "alice", func(u *corestore.User) error { u.Name = "bob"; return nil })
			return err
		}},
		{"an address", func() error {
			_, _, err := s.store.EditNode(t.Context(), "ams1", func(n *corestore.Node) error { n.Address = "ams.example"; return nil })
			return err
		}},
		{"a node that is disabled", func() error {
			_, _, err := s.store.EditNode(t.Context(), "ams1", func(n *corestore.Node) error { n.Enabled = false; return nil })
			return err
		}},
		{"a node's name", func() error {
			_, _, err := s.store.EditNode(t.Context(), "fra1", func(n *corestore.Node) error { n.Name = "fra2"; return nil })
			return err
		}},
		{"an inbound", func() error {
			_, err := s.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: s.node.ID, Protocol: "vmess", Port: 445, Listen: "0.0.0.0", Config: json.RawMessage(everyKind["vmess"])})
			return err
		}},
		{"an inbound that its node refuses", func() error {
			return s.store.AddError(t.Context(), s.node.ID, "", wire.ErrorRequest{Code: "apply_failed", Message: "no", Details: map[string]any{"tag": protocols[0].Tag}})
		}},
		{"a template", func() error {
			return s.store.SetClientTemplate(t.Context(), coreapi.ClientTemplate{Name: "mihomo", Form: "mihomo", Body: "proxies: ['{proxies}']"})
		}},
		{"a rule", func() error {
			return s.store.SetClientRule(t.Context(), coreapi.ClientRule{Name: "r", Hide: []string{"vmess"}})
		}},
		{"a group", func() error {
			group, err := s.store.AddGroup(t.Context(), corestore.Group{Name: "g", Nodes: []int64{other.ID}})
			s.must(err)
			s.sub, _, err = s.store.EditSubscription(t.Context(), fmt.Sprint(s.sub.ID), func(sub *corestore.Subscription) error {
				sub.GroupID = group.ID
				return nil
			})
			return err
		}},
	} {
		t.Run(edit.name, func(t *testing.T) {
			for _, f := range builtinForms(t) {
				s.get("/"+f.name, "") // it is kept now
			}
			all := func() string {
				return s.get("/page", "").Body.String() + s.get("/mihomo", "").Body.String() + s.get("/plain", "").Body.String()
			}
			before := all()
			s.must(edit.do())
			if all() == before {
				t.Error("the edit changes no link")
			}
			fresh := &site{t: t, store: s.store, sub: s.sub, handler: New(s.store, s.handler.options, slog.New(slog.DiscardHandler))}
			for _, f := range builtinForms(t) {
				form := f.name
				if got, want := s.get("/"+form, "").Body.String(), fresh.get("/"+form, "").Body.String(); got != want {
					t.Errorf("%s: got %s, want %s", form, got, want)
				}
			}
		})
	}
}
