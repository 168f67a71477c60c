package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
)

// freedomToLoopback is an outbound straight out that lets clients reach loopback. Without
// finalRules xray-core blocks every private address (proxy/freedom/freedom.go:155), and the
// servers of tests listen on loopback.
const freedomToLoopback = `{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow"}]}}`

// freedomNamesLoopback is the same for a node whose own configuration opens no network: a rule that
// names an address opens it.
const freedomNamesLoopback = `{"tag":"direct","protocol":"freedom","settings":{"finalRules":[{"action":"allow","ip":["127.0.0.0/8","::1"]}]}}`

// ReachLoopback changes a services.xray of a test so that its outbounds of the protocol
// freedom let clients reach loopback. An outbound that has finalRules stays as it is.
func ReachLoopback(service json.RawMessage) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(service, &members); err != nil {
		return nil, fmt.Errorf("read services.xray: %w", err)
	}
	var outbounds []map[string]json.RawMessage
	if raw := members["outbounds"]; raw != nil {
		if err := json.Unmarshal(raw, &outbounds); err != nil {
			return nil, fmt.Errorf("read outbounds: %w", err)
		}
	}
	if len(outbounds) == 0 {
		members["outbounds"] = json.RawMessage("[" + freedomToLoopback + "]")
		return json.Marshal(members)
	}
	for _, out := range outbounds {
		var protocol string
		if json.Unmarshal(out["protocol"], &protocol) != nil || !strings.EqualFold(protocol, "freedom") {
			continue
		}
		var settings map[string]json.RawMessage
		if raw := out["settings"]; raw != nil {
			if err := json.Unmarshal(raw, &settings); err != nil {
				return nil, fmt.Errorf("read settings of an outbound: %w", err)
			}
		}
		if settings == nil { // null, or none
			settings = map[string]json.RawMessage{}
		}
		if settings["finalRules"] != nil {
			continue
		}
		settings["finalRules"] = json.RawMessage(`[{"action":"allow"}]`)
		raw, err := json.Marshal(settings)
		if err != nil {
			return nil, fmt.Errorf("encode settings of an outbound: %w", err)
		}
		out["settings"] = raw
	}
	raw, err := json.Marshal(outbounds)
	if err != nil {
		return nil, fmt.Errorf("encode outbounds: %w", err)
	}
	members["outbounds"] = raw
	return json.Marshal(members)
}
