package adminapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// Links that are filled in are those that are made for the subscription, and stand in the same order.
func TestLinksAreFilledIn(t *testing.T) {
	node := corestore.Node{ID: 1, Name: "fra1", Host: "fra1.example", RegisteredAt: new(time.Now())}
	node.Enabled = true
	rows := corestore.LinkRows{Nodes: []corestore.Node{node}, Group: corestore.Group{Everything: true}}
	filled := map[string]bool{"vless": true, "trojan": true, "http": true, "hysteria": true, "mtproto": true}
	want := 0
	for i, in := range [][2]string{
		{"vless", `{"settings":{"decryption":"none"},"streamSettings":{"network":"ws","wsSettings":{"path":"/w"}}}`},
		{"vmess", `{"streamSettings":{"network":"grpc","grpcSettings":{"serviceName":"s"}}}`},
		{"trojan", `{"streamSettings":{"security":"tls","tlsSettings":{"serverName":"a.example"}}}`},
		{"socks", `{}`},
		{"http", `{}`},
		{"hysteria", `{"streamSettings":{"network":"hysteria","security":"tls"}}`},
		{"shadowsocks", `{"settings":{"method":"aes-256-gcm"}}`},
		{"shadowsocks", `{"settings":{"method":"2022-blake3-aes-256-gcm","password":"AAAAAAAAAAAAAAAAAAAAAA=="}}`},
		{"vless", `{"settings":{"decryption":"none"},"streamSettings":{"network":"tcp","security":"none"}}`}, // its host names the user
		{"socks", `{"streamSettings":{"security":"tls"}}`},                                                   // which no link says
		{"mtproto", `{"tag":"m","listen":"0.0.0.0","port":443,"modes":{"tls":true,"secure":true},"tlsDomains":["www.example.com"]}`},
		{"trojan", `{"streamSettings":{"security":"tls"}}`},
	} {
		p := corestore.Protocol{ID: int64(i + 1), NodeID: 1, Tag: fmt.Sprint("in-", i), Protocol: in[0], Port: 443, Enabled: true, Config: json.RawMessage(in[1])}
		if i == 8 {
			rows.Hosts = []corestore.Host{{ProtocolID: p.ID, HostTerms: coreapi.HostTerms{Enabled: true, Remark: "{user} at {node}"}}}
		} else if filled[in[0]] || i == 7 {
			want++
		}
		rows.Protocols = append(rows.Protocols, p)
	}
	plan := newLinkPlan(rows)
	for n := range 100 {
		var sub corestore.Subscription
		sub.Rotate()
		if n%10 == 0 {
			sub.Credentials = []corestore.Credential{{Protocol: "trojan", Password: "own"}, {Protocol: "vless", ID: "00000000-0000-4000-8000-000000000001"}}
		}
		links, without := plan.links(sub, "alice")
		var made, reasons []string
		for _, w := range plan.plan.For(sub, "alice") {
			made = append(made, w.Links...)
			if w.Reason != "" {
				reasons = append(reasons, w.Protocol.Tag+" of node fra1: "+w.Reason)
			}
		}
		if !slices.Equal(links, made) || !slices.Equal(without, reasons) || len(reasons) == 0 {
			t.Fatalf("subscription %s: got %q and %q, want %q and %q", sub.UUID, links, without, made, reasons)
		}
		if n < 2 && plan.runs != nil { // the first one has credentials of its own
			t.Fatal("links to fill in are made for one request alone")
		}
	}
	got := 0
	for _, run := range plan.runs {
		got += run.links
	}
	if want += 3; got != want { // MTProto has four links
		t.Errorf("%d links are filled in, want %d", got, want)
	}
}

// The links of a subscription are those of now after each edit, though they are kept until one.
func TestLinksAfterEdits(t *testing.T) {
	w := newWaiting(t)
	if _, err := w.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	details, _, err := w.subscriptionAdd(t.Context(), subscriptionArgs{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	node := func(edit func(*corestore.Node)) func() error {
		return func() error {
			_, _, err := w.store.EditNode(t.Context(), "ams2", func(n *corestore.Node) error { edit(n); return nil })
			return err
		}
	}
	for _, c := range []struct {
		edit           string
		do             func() error
		links, without int
	}{
		{"nothing", func() error { return nil }, 2, 0},
		{"a node in maintenance", node(func(n *corestore.Node) { n.Maintenance = true }), 1, 1},
		{"the same, asked again", func() error { return nil }, 1, 1},
		{"it serves again", node(func(n *corestore.Node) { n.Maintenance = false }), 2, 0},
		{"an inbound more", func() error { _, err := w.tryInbound(t, "vless", `{"port":2,"tag":"in-2"}`); return err }, 3, 0},
		{"a node less", func() error { return w.store.RemoveNode(t.Context(), w.ams2.ID) }, 2, 0},
	} {
		if err := c.do(); err != nil {
			t.Fatal(c.edit, err)
		}
		for range 3 { // made, made and kept, and filled in
			shown, err := w.subscriptionShow(t.Context(), idArgs{ID: fmt.Sprint(details.ID)})
			if err != nil || len(shown.Links) != c.links || len(shown.NoLinks) != c.without {
				t.Errorf("%s: %d links, %q, %v; want %d and %d reasons", c.edit, len(shown.Links), shown.NoLinks, err, c.links, c.without)
			}
		}
	}
	// Another group has other links, though nothing has changed since.
	none, err := w.store.AddGroup(t.Context(), corestore.Group{Name: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		group int64
		links int
	}{{none.ID, 0}, {details.GroupID, 2}, {none.ID, 0}} {
		if plan, err := w.linkPlan(t.Context(), c.group); err != nil || len(plan.plan.For(details.Subscription, "alice")) != c.links {
			t.Errorf("group %d has %d ways, %v; want %d", c.group, len(plan.plan.For(details.Subscription, "alice")), err, c.links)
		}
	}
}
