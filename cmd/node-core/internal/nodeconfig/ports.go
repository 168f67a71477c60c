package nodeconfig

import (
	"encoding/json"
	"fmt"
	"slices"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/xray/state"
)

// Bindings returns the addresses, ports and networks on which the inbound listens, by the
// rule that the node itself follows.
func Bindings(p corestore.Protocol) ([]state.Binding, error) {
	object := map[string]json.RawMessage{}
	if p.Protocol != mtproto && p.Config != nil {
		if err := json.Unmarshal(p.Config, &object); err != nil {
			return nil, fmt.Errorf("read the inbound: %w", err)
		}
	}
	if err := set(object, "listen", p.Listen); err != nil {
		return nil, err
	}
	if err := set(object, "port", p.Port); err != nil {
		return nil, err
	}
	config, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode the inbound: %w", err)
	}
	return state.Inbound{Tag: p.Tag, Protocol: p.Protocol, Config: config}.Bindings()
}

// Collide says whether two inbounds of a node would listen on the same address, port and
// network. An inbound that cannot listen anywhere collides with none.
func Collide(a, b corestore.Protocol) bool {
	ofA, errA := Bindings(a)
	ofB, errB := Bindings(b)
	return errA == nil && errB == nil && slices.ContainsFunc(ofA, func(x state.Binding) bool { return slices.ContainsFunc(ofB, x.Overlaps) })
}
