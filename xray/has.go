package xray

import (
	"encoding/json"
	"slices"
)

// has tells whether the state has what the operation puts, but for clients.
func (s State) has(op Operation) bool {
	switch op.Kind {
	case OpPutOutbound:
		i := s.outboundIndex(op.Tag)
		return i >= 0 && slices.Equal(s.Outbounds[i].Config, op.Outbound.Config)
	case OpSetRouting:
		return slices.Equal(withoutUsers(s.Routing), withoutUsers(op.Routing))
	case OpSetPolicy:
		return slices.Equal(s.Policy, op.Policy)
	case OpSetDNS:
		return slices.Equal(s.DNS, op.DNS)
	case OpAddInbound, OpReplaceInbound:
		return slices.Equal(s.Inbounds[op.Tag].Config, op.Inbound.Config)
	case OpRemoveOutbound, OpDefaultOutbound, OpRemoveInbound, OpAddUsers, OpUpdateUsers, OpRemoveUsers:
	}
	return false
}

// withoutUsers is the routing without the clients that its rules name: their names are
// other ones as soon as a client comes or goes.
func withoutUsers(routing json.RawMessage) json.RawMessage {
	members := map[string]json.RawMessage{}
	var rules []map[string]json.RawMessage
	if json.Unmarshal(routing, &members) != nil || json.Unmarshal(members["rules"], &rules) != nil {
		return routing
	}
	for _, rule := range rules {
		delete(rule, "user")
	}
	var err error
	if members["rules"], err = json.Marshal(rules); err == nil {
		routing, err = canonical(members)
	}
	if err != nil {
		return nil
	}
	return routing
}
