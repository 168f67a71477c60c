package main

import (
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// The texts of a node reach the terminal as printable text alone: no escape sequence, and no line
// break.
func TestHealthIsPrintable(t *testing.T) {
	var out strings.Builder
	showHealth(&out, &corestore.NodeStatus{At: time.Unix(0, 0).UTC(), StatusRequest: wire.StatusRequest{
		Inbounds:     []wire.InboundHealth{{Tag: "in\x1b[2J", State: "failed", Reason: "first\nprotocol fake"}},
		Warnings:     []string{"größer\u202e\x07"},
		MoreWarnings: 3,
	}})
	want := "\nhealth, told 1970-01-01T00:00:00Z:\n  in\ufffd[2J failed since 0001-01-01T00:00:00Z: first protocol fake\n  warning: größer\ufffd\ufffd\n  and 3 more warnings\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}

func TestTablesArePrintable(t *testing.T) {
	var out strings.Builder
	said := "new\nline\tand \x1b[31m"
	line(&out, said, &said)
	if want := "new line and \ufffd[31m\tnew line and \ufffd[31m\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
