package adminapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// tryInbound adds a native inbound to fra1 and returns the node's words where it is refused.
func (s *Server) tryInbound(t *testing.T, protocol, object string) (changed, error) {
	t.Helper()
	_, c, err := s.protocolAdd(t.Context(), coreapi.NewProtocol{Node: "fra1", Inbound: json.RawMessage(object), Flags: nodeconfig.InboundFlags{Protocol: protocol}})
	if _, bad := errors.AsType[badInput](err); err != nil && !bad {
		t.Errorf("%v is not told as the operator's mistake", err)
	}
	return c, err
}

// Core refuses a change that every node would refuse, with the node's words, and stores nothing.
func TestWhatEveryNodeRefusesIsNotStored(t *testing.T) {
	s := newServer(t)
	revision := func() int64 {
		t.Helper()
		node, err := s.store.Node(t.Context(), "fra1")
		if err != nil {
			t.Fatal(err)
		}
		return node.Revision
	}
	before := revision()
	unchanged := func() {
		t.Helper()
		if now := revision(); now != before {
			t.Errorf("the node has revision %d, and had %d: something refused was stored", now, before)
		}
	}
	for name, c := range map[string]struct{ protocol, object, says string }{
		"an unknown protocol":          {"vles", `{"port":1}`, `protocol "vles" is unknown to Xray; it knows`},
		"an unknown member":            {"vless", `{"port":1,"listn":"127.0.0.1","settings":{"decryption":"none"}}`, `Xray has no member "listn"; did you mean "listen"?`},
		"one of the settings":          {"trojan", `{"port":1,"settings":{"fallback":[]}}`, `Xray has no member "fallback"; did you mean "fallbacks"?`},
		"a listen that is no address":  {"vless", `{"port":1,"listen":"here"}`, `listens on "here", which is not an IP address`},
		"TLS without a certificate":    {"vless", `{"port":1,"streamSettings":{"security":"tls"}}`, "TLS and no certificate"},
		"a relative path":              {"vless", `{"port":1,"streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificateFile":"c.pem","keyFile":"/k.pem"}]}}}`, "is not an absolute path"},
		"an unknown member of MTProto": {"mtproto", `{"port":1,"modes":{"tls":true},"tlsDomains":["a.example"],"mod":1}`, `"mod"`},
		"an ad tag cut short":          {"mtproto", `{"port":1,"modes":{"secure":true},"adTag":"00"}`, "32 hex"},
	} {
		if _, err := s.tryInbound(t, c.protocol, c.object); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.says)
		}
	}
	for name, c := range map[string]struct{ object, says string }{
		"an unknown protocol": {`{"tag":"o","protocol":"fredom"}`, `outbound "o": protocol "fredom" is unknown to Xray; it knows`},
		"an unknown member":   {`{"tag":"o","protocol":"freedom","settings":{"finalRule":[]}}`, `Xray has no member "finalRule"; did you mean "finalRules"?`},
		"a way to nowhere":    {`{"tag":"o","protocol":"freedom","proxySettings":{"tag":"none"}}`, `names outbound "none", which does not exist`},
	} {
		_, _, err := s.outboundAdd(t.Context(), coreapi.NewOutbound{Node: "fra1", Config: json.RawMessage(c.object)})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("outbound: %s: got %v, want an error with %q", name, err, c.says)
		}
	}
	unchanged()
	if _, err := s.tryInbound(t, "mtproto", `{"tag":"m","port":2,"modes":{"secure":true}}`); err != nil {
		t.Fatal(err)
	}
	before = revision()
	for options, says := range map[string]string{
		`{"upstreams":[{"type":"tor"}]}`:          `type is "tor"`,
		`{"advanced":{"server":{"port":1}}}`:      "advanced.server.port is set by the node",
		`{"upstreams":[{"type":"socks5","x":1}]}`: `unknown field "x"`,
	} {
		if _, _, err := s.nodeMTProto(t.Context(), mtprotoArgs{Node: "fra1", Options: json.RawMessage(options)}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("options %s: got %v, want an error with %q", options, err, says)
		}
	}
	unchanged()
}

// Core stores a change that only the node can judge: files, and ports that other processes hold.
func TestWhatTheHostDecidesIsStored(t *testing.T) {
	s := newServer(t)
	c, err := s.tryInbound(t, "vless", `{"port":1,"streamSettings":{"security":"tls","tlsSettings":{"certificates":[{"certificateFile":"/nonexistent/c.pem","keyFile":"/nonexistent/k.pem"}]}}}`)
	if err != nil || len(c.nodes) != 1 || c.part.Tag == "" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// A warning of the node is told when the change brings it, and not again.
func TestWarningsOfAChange(t *testing.T) {
	s := newServer(t)
	c, err := s.tryInbound(t, "trojan", `{"port":1}`)
	if err != nil || len(c.warnings) != 1 || !strings.Contains(c.warnings[0], "trojan without TLS") {
		t.Errorf("got %q, %v: want the node's warning", c.warnings, err)
	}
	if c, err = s.tryInbound(t, "vless", `{"port":2}`); err != nil || len(c.warnings) > 0 {
		t.Errorf("got %q, %v: want no old warning", c.warnings, err)
	}
}

// storeBad puts an inbound and an outbound into the database that no check has seen, as an older
// Core took them.
func (s *Server) storeBad(t *testing.T) (node int64, protocol int64) {
	t.Helper()
	n, err := s.store.Node(t.Context(), "fra1")
	if err != nil {
		t.Fatal(err)
	}
	var last corestore.Protocol
	for i, object := range []string{`{"listn":"x","port":443,"protocol":"vless"}`, `{"port":443,"protocol":"vless"}`, `{"port":443,"protocol":"vles"}`} {
		last, err = s.store.AddProtocol(t.Context(), corestore.Protocol{NodeID: n.ID, Tag: fmt.Sprint("bad-", i), Protocol: "vless", Port: 443, Config: json.RawMessage(object)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.store.PutOutbound(t.Context(), corestore.Outbound{NodeID: n.ID, Tag: "typo", Config: json.RawMessage(`{"tag":"typo","protocol":"fredom"}`)}); err != nil {
		t.Fatal(err)
	}
	return n.ID, last.ID
}

// A stored part that is wrong already refuses no other change, least of all a removal.
func TestOldFaultsRefuseNothing(t *testing.T) {
	s := newServer(t)
	_, protocol := s.storeBad(t)
	if _, err := s.store.AddUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	sub := must(t, s.subscriptionAdd, subscriptionArgs{User: "alice"})
	id := idArgs{ID: fmt.Sprint(sub.ID)}
	must(t, s.subscriptionDisable, id)
	must(t, s.subscriptionEnable, id)
	if _, err := s.tryInbound(t, "vless", `{"port":444}`); err != nil {
		t.Error(err)
	}
	if _, err := s.tryInbound(t, "vless", `{"port":445,"listn":"x"}`); err == nil {
		t.Error("a fault that another inbound has too is taken")
	}
	must(t, s.outboundAdd, coreapi.NewOutbound{Node: "fra1", Config: json.RawMessage(`{"tag":"b","protocol":"freedom","proxySettings":{"tag":"direct"}}`)})
	if _, _, err := s.outboundRemove(t.Context(), coreapi.NewOutbound{Node: "fra1", Tag: "direct"}); err == nil || !strings.Contains(err.Error(), `names outbound "direct"`) {
		t.Errorf("an outbound that another one needs is removed: %v", err)
	}
	must(t, s.outboundRemove, coreapi.NewOutbound{Node: "fra1", Tag: "typo"})
	must(t, s.protocolRemove, idArgs{ID: fmt.Sprint(protocol)})
	must(t, s.subscriptionRemove, id)
	must(t, s.userRemove, userArgs{User: "alice"})
}

// A disabled outbound is checked too: it serves once it is enabled. What names it is refused as before,
// because the node does not have it.
func TestDisabledOutboundsAreChecked(t *testing.T) {
	s := newServer(t)
	add := func(object string) error {
		_, _, err := s.outboundAdd(t.Context(), coreapi.NewOutbound{Node: "fra1", Config: json.RawMessage(object)})
		return err
	}
	if err := add(`{"tag":"spare","protocol":"freedom"}`); err != nil {
		t.Fatal(err)
	}
	edit := func(args coreapi.OutboundEdit) error {
		_, _, err := s.outboundEdit(t.Context(), "fra1", "spare", args)
		return err
	}
	if err := edit(coreapi.OutboundEdit{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if err := edit(coreapi.OutboundEdit{Config: json.RawMessage(`{"protocol":"freedom","settings":{"finalRule":[]}}`)}); err == nil || !strings.Contains(err.Error(), `no member "finalRule"`) {
		t.Errorf("a disabled outbound that no node can run: %v", err)
	}
	if err := edit(coreapi.OutboundEdit{Config: json.RawMessage(`{"protocol":"blackhole"}`)}); err != nil {
		t.Errorf("a good edit of a disabled outbound: %v", err)
	}
	if err := add(`{"tag":"chained","protocol":"freedom","proxySettings":{"tag":"spare"}}`); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("an outbound that goes through a disabled one: %v", err)
	}
}
