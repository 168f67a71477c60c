package adminapi

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"nodeagent/coreapi"
)

func TestOutboundAdd(t *testing.T) {
	s := newServer(t)
	// Numbers that a float64 can't hold go to the node as they were given.
	added := must(t, s.outboundAdd, coreapi.NewOutbound{Node: "fra1", Tag: "out", Config: json.RawMessage(`{"protocol":"freedom","settings":{"userLevel":9007199254740993}}`)})
	stored, err := s.store.Outbounds(t.Context(), added.NodeID)
	if err != nil || len(stored) != 2 {
		t.Fatalf("%d outbounds, want direct and out (%v)", len(stored), err)
	}
	if want := `{"protocol":"freedom","settings":{"userLevel":9007199254740993},"tag":"out"}`; string(stored[1].Config) != want {
		t.Errorf("stored %s, want %s", stored[1].Config, want)
	}
	for name, config := range map[string]string{
		"no tag":              `{"protocol":"freedom"}`,
		"a tag of no text":    `{"protocol":"freedom","tag":5}`,
		"a tag without end":   `{"protocol":"freedom","tag":"` + strings.Repeat("x", maxTag+1) + `"}`,
		"null":                `null`,
		"what is no outbound": `[]`,
	} {
		if _, _, err := s.outboundAdd(t.Context(), coreapi.NewOutbound{Node: "fra1", Config: json.RawMessage(config)}); err == nil {
			t.Errorf("%s was taken", name)
		} else if _, bad := errors.AsType[badInput](err); !bad {
			t.Errorf("%s: %v is not told as the operator's mistake", name, err)
		}
	}
}
