package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
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

// counter counts what is written to it, and refuses it where it has an error.
type counter struct {
	writes, bytes int
	err           error
}

func (c *counter) Write(p []byte) (int, error) {
	c.writes++
	c.bytes += len(p)
	return len(p), c.err
}

// A long answer is few writes, and one that can't be written is an error.
func TestLongAnswersAreFewWrites(t *testing.T) {
	links := make([]string, 10_000)
	for i := range links {
		links[i] = strings.Repeat("x", 100)
	}
	answer := coreapi.SubscriptionDetails{Links: links}
	var out counter
	if err := printAnswer(&shared{std: streams{out: &out}}, answer, showSubscription); err != nil {
		t.Fatal(err)
	}
	if out.bytes < 1_010_000 || out.writes > 100 {
		t.Errorf("%d bytes in %d writes, want 1,010,000 at least in 100 at most", out.bytes, out.writes)
	}
	gone := errors.New("nobody reads it")
	for _, n := range []int{1, len(links)} {
		answer.Links = links[:n]
		if err := printAnswer(&shared{std: streams{out: &counter{err: gone}}}, answer, showSubscription); !errors.Is(err, gone) {
			t.Errorf("%d links: the error is %v, want %v", n, err, gone)
		}
	}
}
