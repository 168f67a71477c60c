package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/xray/parse"
	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// checkCase returns an error for a member that differs from one of names only in upper and
// lower case. Xray would read it as that member, and node-agent would not find it.
func checkCase(members map[string]json.RawMessage, names ...string) error {
	for member := range members {
		for _, name := range names {
			if member != name && strings.EqualFold(member, name) {
				return fmt.Errorf("the member %q has to be written %q", member, name)
			}
		}
	}
	return nil
}

// checkClientCase returns a fault for each new client with a member in other case.
func checkClientCase(from, to state.State) error {
	var all []error
	for tag, client := range newClients(from, to, func(r state.Reading) bool { return r.OddCase }) {
		members, err := rawjson.Object(client.Account)
		if err == nil {
			err = checkCase(members, parse.ClientMembers...)
		}
		if err != nil {
			all = append(all, ofClient(fault.InText(tag, "inbound %q, %s: %v", tag, clientLabel(client), err), client))
		}
	}
	return errors.Join(all...)
}

// checkRoutingCase returns a fault for a member of the routing in other case.
func checkRoutingCase(s state.State) error {
	if s.Routing == nil {
		return nil
	}
	routing, err := rawjson.Object(s.Routing)
	if err == nil {
		err = checkCase(routing, "rules", "balancers", "domainStrategy")
	}
	if err != nil {
		return fault.InText("", "routing: %v", err)
	}
	for name, members := range map[string][]string{
		"rules":     {"ruleTag", "outboundTag", "balancerTag", "user", "inboundTag", "domain", "domains", "ip", "network", "attrs"},
		"balancers": {"tag", "selector", "fallbackTag", "strategy"},
	} {
		var entries []map[string]json.RawMessage
		_ = json.Unmarshal(routing[name], &entries) // the worker refuses by name what cannot be decoded
		for i, entry := range entries {
			if err := checkCase(entry, members...); err != nil {
				return fault.InText("", "routing.%s[%d]: %v", name, i, err)
			}
		}
	}
	return nil
}
