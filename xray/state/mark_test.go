package state

import (
	"encoding/json"
	"slices"
	"testing"
)

// A sum differs where a client differs in anything that the worker is told, and nowhere else.
func TestSum(t *testing.T) {
	clients := func() Clients {
		return Clients{
			{Email: "a", Account: json.RawMessage(`{"id":"1"}`), Slot: 1},
			{Email: "b", Account: json.RawMessage(`{"id":"2"}`), Slot: 2, Limits: Limits{IPs: 1}, Group: "g"},
		}
	}
	same := clients()
	slices.Reverse(same)
	same[0].Key, same[0].Tied, same[0].Name = "k", true, "n" // the daemon's alone
	if same.Sum() != clients().Sum() || (Clients{}).Sum() != (Sum{}) {
		t.Error("equal clients have other sums")
	}
	for name, change := range map[string]func(c Clients) Clients{
		"email":   func(c Clients) Clients { c[0].Email = "c"; return c },
		"account": func(c Clients) Clients { c[0].Account = json.RawMessage(`{"id":"3"}`); return c },
		"slot":    func(c Clients) Clients { c[0].Slot = 3; return c },
		"group":   func(c Clients) Clients { c[1].Group = "h"; return c },
		"limit":   func(c Clients) Clients { c[1].Limits.Connections = 1; return c },
		"rates":   func(c Clients) Clients { c[1].Limits.RateUpBitsPerSecond = 1; return c },
		"fewer":   func(c Clients) Clients { return c[:1] },
		"twice":   func(c Clients) Clients { return append(c, c[0]) },
		"swapped": func(c Clients) Clients { c[0].Slot, c[1].Slot = c[1].Slot, c[0].Slot; return c },
	} {
		if change(clients()).Sum() == clients().Sum() {
			t.Errorf("%s: other clients have the same sum", name)
		}
	}
}
