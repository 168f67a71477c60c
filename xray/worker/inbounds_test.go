package worker

import (
	"errors"
	"testing"

	"nodeagent/xray/worker/unixsocket"

	"github.com/xtls/xray-core/features/inbound"
)

// oneName is a handler on an abstract name, which one can listen on alone.
type oneName struct {
	inbound.Handler
	listening *string
	name      string
	fails     bool
}

func (h *oneName) Tag() string { return "unix-1" }

func (h *oneName) Start() error {
	switch {
	case *h.listening != "":
		return errors.New(*h.listening + " listens on the name")
	case h.fails:
		panic("a test wants it")
	}
	*h.listening = h.name
	return nil
}

func (h *oneName) Close() error {
	if *h.listening == h.name {
		*h.listening = ""
	}
	return nil
}

// The inbound that had an abstract name listens on it again where its successor can't, also after
// a panic.
func TestAbstractNameGivenBack(t *testing.T) {
	m, listening := newInboundManager(), ""
	for _, h := range []*oneName{{name: "one"}, {name: "two"}, {name: "three", fails: true}} {
		h.listening = &listening
		m.owns(h, nil, &unixsocket.Socket{Path: "@name"}, ends)
		if err := m.AddHandler(t.Context(), h); (err != nil) != h.fails {
			t.Fatalf("%s: got %v", h.name, err)
		}
	}
	if listening != "two" {
		t.Errorf("%q listens", listening)
	}
}
