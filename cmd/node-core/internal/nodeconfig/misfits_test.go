package nodeconfig

import (
	"strings"
	"testing"

	"nodeagent/cmd/node-core/internal/corestore"
)

func TestMisfits(t *testing.T) {
	const (
		older, today = "node-agent/1.0.0 (xray 26.3.27)", "node-agent/1.1.0 xray/26.7.28"
		newMask      = `{"protocol":"vless","streamSettings":{"finalmask":{"udp":[{"type":"mkcp-legacy"}]}}}`
		oldMask      = `{"protocol":"vless","streamSettings":{"finalmask":{"udp":[{"type":"header-dns"}]}}}`
		reality      = `{"protocol":"vless","streamSettings":{"security":"reality"}}`
	)
	for name, row := range map[string]struct {
		agent, protocol, config string
		says                    string // empty: nothing
		refused, leftOut        bool
	}{
		"too old":                  {older, "vless", newMask, "Core leaves the inbound out", true, true},
		"too new":                  {today, "vless", oldMask, "The node refuses the inbound", true, false},
		"it fits":                  {today, "vless", newMask, "", false, false},
		"of no known version":      {"", "vless", newMask, "", false, false},
		"something else than then": {today, "vless", reality, "REALITY", false, false},
		"MTProto":                  {older, "mtproto", newMask, "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			node := corestore.Node{Name: "fra1", Agent: row.agent}
			p := corestore.Protocol{Tag: "in-1", Protocol: row.protocol, Config: []byte(row.config)}
			found := ProtocolMisfits(node, p)
			switch {
			case row.says == "" && len(found) > 0:
				t.Errorf("got %+v, want nothing", found)
			case row.says != "" && (len(found) != 1 || !strings.HasPrefix(found[0].Text, "node fra1 has Xray 26.") || !strings.Contains(found[0].Text, row.says) || found[0].Refused != row.refused):
				t.Errorf("got %+v, want %q", found, row.says)
			}
			if got := LeftOut(node, p); got != row.leftOut {
				t.Errorf("left out: %t", got)
			}
		})
	}
}

// An inbound that is left out of a node's configuration is checked like every other one.
func TestWhatIsLeftOutIsChecked(t *testing.T) {
	node := corestore.Node{Name: "fra1", Agent: "node-agent/1.0.0 (xray 26.3.27)"}
	p := corestore.Protocol{Tag: "in-1", Protocol: "vless", Config: []byte(`{"protocol":"vless","settings":[],"streamSettings":{"method":"raw"}}`)}
	if !LeftOut(node, p) {
		t.Fatal("the inbound fits")
	}
	if err := Check(node, p); err == nil {
		t.Error("settings that are a list pass")
	}
}
