package adminapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/hub"
	"nodeagent/cmd/node-core/internal/nodeconfig"
	"nodeagent/coreapi"
)

// twoInstances are two instances of Core on one database: neither knows of the other's locks.
func twoInstances(t *testing.T) (one, other *Server) {
	t.Helper()
	one = newServer(t)
	return one, NewServer(t.Context(), one.store, hub.New(), "https://core.example", "", slog.New(slog.DiscardHandler))
}

// An edit is not lost where another instance edits the same inbound or template between the
// reading and the storing: the later one is made again, of what is there now.
func TestEditsOfTwoInstances(t *testing.T) {
	one, other := twoInstances(t)
	ctx := t.Context()
	if _, err := one.tryInbound(t, "vless", `{"protocol":"vless","port":2001,"tag":"in"}`); err != nil {
		t.Fatal(err)
	}
	add := func(s *Server, args coreapi.NewProtocol) {
		t.Helper()
		args.Flags = nodeconfig.InboundFlags{Protocol: "vless"}
		if _, _, err := s.protocolAdd(ctx, args); err != nil {
			t.Fatal(err)
		}
	}
	add(one, coreapi.NewProtocol{Template: "front", Inbound: json.RawMessage(`{"protocol":"vless","port":2002}`)})
	if _, err := one.nodeAdd(ctx, nodeArgs{Node: "ams2"}); err != nil {
		t.Fatal(err)
	}
	addUse := func(s *Server, node string) {
		t.Helper()
		if _, _, err := s.protocolAdd(ctx, coreapi.NewProtocol{Node: node, Template: "front", Tag: "of-front"}); err != nil {
			t.Fatal(err)
		}
	}
	addUse(one, "fra1")
	edit := func(s *Server, word string, args coreapi.ProtocolEdit) {
		t.Helper()
		if _, _, err := s.protocolEdit(ctx, word, args); err != nil {
			t.Fatal(err)
		}
	}
	protocol := func(word string) corestore.Protocol {
		t.Helper()
		id, err := one.protocolID(ctx, word)
		if err != nil {
			t.Fatal(err)
		}
		p, err := one.store.Protocol(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	// slowly is an edit of a note; meanwhile runs after its first reading.
	slowly := func(note string, meanwhile func(n int)) protocolEditor {
		n := 0
		return func(p corestore.Protocol, own coreapi.Overrides) (corestore.Protocol, error) {
			n++
			meanwhile(n)
			p.Note = note
			return nodeconfig.Override(p, own)
		}
	}
	once := func(f func()) func(int) {
		return func(n int) {
			if n == 1 {
				f()
			}
		}
	}
	port := func(port int) coreapi.ProtocolEdit {
		return coreapi.ProtocolEdit{Overrides: coreapi.Overrides{Port: port}}
	}

	if _, _, err := one.editProtocol(ctx, "fra1/in", coreapi.Overrides{}, slowly("a", once(func() { edit(other, "fra1/in", port(2003)) }))); err != nil {
		t.Fatal(err)
	}
	if p := protocol("fra1/in"); p.Port != 2003 || p.Note != "a" {
		t.Errorf("the inbound has port %d and the note %q, want both edits", p.Port, p.Note)
	}
	// Of a template, and of the inbounds that have it.
	if _, _, err := one.editTemplate(ctx, "front", coreapi.Overrides{Port: 2004}, slowly("b", once(func() {
		edit(other, "fra1/of-front", coreapi.ProtocolEdit{Tag: new("other-tag")})
		edit(other, "front", coreapi.ProtocolEdit{Overrides: coreapi.Overrides{PublicHost: "front.example"}})
	}))); err != nil {
		t.Fatal(err)
	}
	if p := protocol("fra1/other-tag"); p.Port != 2004 || p.Link.PublicHost != "front.example" {
		t.Errorf("the template's inbound has port %d and host %q, want both edits", p.Port, p.Link.PublicHost)
	}
	if template, err := one.store.Template(ctx, "front"); err != nil || template.Port != 2004 || template.Note != "b" || template.Link.PublicHost != "front.example" {
		t.Errorf("the template is %+v (%v), want both edits", template, err)
	}
	// An inbound that gets the template, and a template that changes below its inbound.
	before, err := one.store.Template(ctx, "front")
	if err != nil {
		t.Fatal(err)
	}
	uses, err := one.store.UsesOf(ctx, before.ID)
	if err != nil || len(uses) != 1 {
		t.Fatalf("%d uses, %v", len(uses), err)
	}
	addUse(other, "ams2")
	// A template that another instance changes while an inbound is made of it.
	if _, err := one.store.AddProtocolOf(ctx, corestore.Protocol{NodeID: protocol("fra1/in").NodeID, Tag: "late", Protocol: before.Protocol, TemplateID: before.ID, Config: before.Config}, before); err != nil {
		t.Fatal(err)
	}
	if _, err := one.store.RemoveProtocol(ctx, protocol("fra1/late").ID); err != nil {
		t.Fatal(err)
	}
	stale := before
	stale.Port++
	if _, err := one.store.AddProtocolOf(ctx, corestore.Protocol{NodeID: protocol("fra1/in").NodeID, Tag: "late", Protocol: stale.Protocol, TemplateID: stale.ID, Config: stale.Config}, stale); !errors.Is(err, corestore.ErrChanged) {
		t.Errorf("got %v for an inbound of a template as it is no more", err)
	}
	if _, err := one.store.UpdateTemplate(ctx, before, before, []corestore.EditedProtocol{{Before: uses[0], After: uses[0]}}); !errors.Is(err, corestore.ErrChanged) {
		t.Errorf("got %v for a template that has one more inbound", err)
	}
	if _, _, err := one.editProtocol(ctx, "ams2/of-front", coreapi.Overrides{}, slowly("c", once(func() { edit(other, "front", port(2005)) }))); err != nil {
		t.Fatal(err)
	}
	if p := protocol("ams2/of-front"); p.Port != 2005 || p.Note != "c" {
		t.Errorf("the inbound has port %d and the note %q, want both edits", p.Port, p.Note)
	}
	// A report of a node meanwhile is no edit, and is not undone.
	if _, _, err := one.editProtocol(ctx, "fra1/in", coreapi.Overrides{}, slowly("d", func(n int) {
		if n > 1 {
			t.Error("the edit was made again for what a node said")
		}
		if err := other.store.Applied(ctx, protocol("fra1/in").NodeID, "", 1_000); err != nil {
			t.Error(err)
		}
	})); err != nil {
		t.Fatal(err)
	}
	// There is an end of it.
	_, _, err = one.editProtocol(ctx, "fra1/in", coreapi.Overrides{}, slowly("e", func(n int) { edit(other, "fra1/in", port(3000+n)) }))
	if p := one.problemOf(ctx, "protocol-edit", err); p.Status != http.StatusPreconditionFailed || !strings.Contains(p.Detail, fmt.Sprint("protocol ", protocol("fra1/in").ID)) {
		t.Errorf("got %+v", p)
	}
}

// A note, and what stands in links alone, is no change for the node: the inbound's object stays as
// the operator wrote it, and the revision too. What is in the object is one.
func TestNoteRaisesNoRevision(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	node, err := s.store.Node(ctx, "fra1")
	if err != nil {
		t.Fatal(err)
	}
	const object = `{"protocol": "vless", "port": "2001", "settings": {"decryption": "none", "clients": []}}` // in no form that Core writes
	p, err := s.store.AddProtocol(ctx, corestore.Protocol{NodeID: node.ID, Tag: "in", Protocol: "vless", Port: 2001, Config: []byte(object)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		edit   coreapi.ProtocolEdit
		raises bool
	}{
		{"a note", coreapi.ProtocolEdit{Note: new("a")}, false},
		{"the host in links", coreapi.ProtocolEdit{Overrides: coreapi.Overrides{PublicHost: "front.example"}}, false},
		{"the same port", coreapi.ProtocolEdit{Overrides: coreapi.Overrides{Port: 2001}}, false},
		{"another port", coreapi.ProtocolEdit{Overrides: coreapi.Overrides{Port: 2002}}, true},
	} {
		before, err := s.store.NodeByID(ctx, node.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, changes, err := s.protocolEdit(ctx, "fra1/in", c.edit)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		after, err := s.store.NodeByID(ctx, node.ID)
		if err != nil {
			t.Fatal(err)
		}
		if raised := after.Revision > before.Revision; raised != c.raises || raised != (len(changes.nodes) > 0) {
			t.Errorf("%s: the revision was %d and is %d, nodes %v", c.name, before.Revision, after.Revision, changes.nodes)
		}
		stored, err := s.store.Protocol(ctx, p.ID)
		if err != nil || (string(stored.Config) == object) == c.raises {
			t.Errorf("%s: the object is %s (%v)", c.name, stored.Config, err)
		}
	}
}
