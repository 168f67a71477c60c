package corestore

import (
	"encoding/json"
	"testing"
	"time"
)

// A tag that Core makes is never one that an operator has given.
func TestTagsOfProtocols(t *testing.T) {
	s := openStore(t)
	node, _, err := s.AddNode(t.Context(), "fra1", "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	add := func(tag string) Protocol {
		t.Helper()
		p, err := s.AddProtocol(t.Context(), Protocol{NodeID: node.ID, Tag: tag, Protocol: "vless", Port: 443, Config: json.RawMessage(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	add("vless-2")
	for _, want := range []string{"vless-1", "vless-3"} {
		if p := add(""); p.Tag != want {
			t.Errorf("tag %q, want %s", p.Tag, want)
		}
	}
}
