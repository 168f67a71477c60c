package process

import (
	"fmt"
	"strings"
	"testing"

	"nodeagent/telemt/service"
)

const secret = "0123456789abcdef0123456789abcdef"

func TestOutputHidesSecrets(t *testing.T) {
	o := newOutput(service.Desired{
		Upstreams: []service.Upstream{{Type: "socks5", Password: "pass-word"}, {Type: "shadowsocks", URL: "ss://abc@host:1"}},
		Advanced:  map[string]any{"upstreams": []any{map[string]any{"type": "socks5", "password": "of-advanced"}}},
	})
	for _, line := range []string{"socks5 of-advanced", "link tg://proxy?secret=ee" + secret + "6f6e65", "upstream pass-word", "url ss://abc@host:1 failed"} {
		said := o.add(line)
		for _, s := range []string{secret, "pass-word", "ss://abc", "of-advanced"} {
			if strings.Contains(said, s) || strings.Contains(o.ExitReason(), s) {
				t.Errorf("%q has a secret", said)
			}
		}
	}
}

func TestExitReason(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"nothing printed":  {nil, "it printed nothing"},
		"the last line":    {[]string{"one", "two"}, "two"},
		"the errors":       {[]string{"12:00 ERROR first", "x", "12:01 ERROR second", "bye"}, "first; second"},
		"the fatal line":   {[]string{"12:00 ERROR first", "[telemt] Configuration error: x", "bye"}, "Configuration error: x"},
		"lines after many": {append(make([]string, keptLines), "last"), "last"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutput(service.Desired{})
			for _, line := range c.lines {
				o.add(line)
			}
			if got := o.ExitReason(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A rejection is found only after the position, also when more lines follow than are kept.
func TestRejectionAfter(t *testing.T) {
	o := newOutput(service.Desired{})
	o.add("ERROR config reload: old")
	position := o.Position()
	if got := o.RejectionAfter(position); got != "" {
		t.Errorf("got %q, which was printed before", got)
	}
	o.add("INFO config reload: accepted")
	o.add("ERROR config reload: new")
	if got := o.RejectionAfter(position); got != "new" {
		t.Errorf("got %q, want new", got)
	}
	for i := range 2 * keptLines {
		o.add(fmt.Sprint("line ", i))
	}
	if got := o.RejectionAfter(position); got != "" {
		t.Errorf("got %q of a line that is not kept", got)
	}
}

// telemt's names of users are the clients' ids in the log, and other digits stay hidden.
func TestOutputNamesClients(t *testing.T) {
	in := service.Inbound{Tag: "mtproto-1", Clients: []service.Client{{ID: "alice"}}}
	o := newOutput(service.Desired{Inbound: in})
	alice, bob := in.UserName(service.Client{ID: "alice"}), in.UserName(service.Client{ID: "bob"})
	line := "WARN user " + alice + " and user " + bob
	if got := o.add(line); got != "WARN user alice and user (hidden)" {
		t.Errorf("got %q", got)
	}
	in.Clients = []service.Client{{ID: "bob"}}
	o.Know(in)
	if got := o.add(line); got != "WARN user alice and user bob" {
		t.Errorf("got %q", got)
	}
}
