package nodeconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/cmd/node-core/internal/share"
	"nodeagent/coreclient/wire"
)

// Build makes a node's configuration from its rows. Every subscription that is let in becomes a
// client of the inbounds that its group reaches, with its limits, and clientMap says to which
// user and subscription its traffic belongs. A node that is disabled serves nobody, and an inbound
// that is disabled is left out. Outbounds without a configuration are left out, and
// so are inbounds for which the node's Xray is too old (LeftOut).
//
// The same rows give the same configuration, byte for byte, as the ETag needs. One row that
// can't be built is an error of the whole, which is why Check looks at each row before it is
// stored.
func Build(rows corestore.NodeRows) (wire.NodeConfig, error) {
	config := wire.NodeConfig{Revision: rows.Node.Revision, ClientMap: map[string]wire.ClientRef{}}
	var clients []corestore.Subscription
	for _, sub := range rows.Subscriptions {
		if sub.Served() && rows.Node.Serves() {
			config.ClientMap[sub.UUID] = wire.ClientRef{UserID: sub.UserID, SubscriptionID: &sub.ID}
			clients = append(clients, sub)
		}
	}
	service := struct {
		Inbounds  []json.RawMessage `json:"inbounds"`
		Outbounds []json.RawMessage `json:"outbounds"`
		routingService
	}{Inbounds: []json.RawMessage{}}
	var telegram []mtprotoInbound
	for _, p := range rows.Protocols {
		if !rows.Node.Serves() || !p.Enabled || LeftOut(rows.Node, p) {
			continue
		}
		on := reached(clients, rows.Reach, p.ID)
		if p.Protocol == mtproto {
			in, err := mtprotoWith(p, on)
			if err != nil {
				return config, err
			}
			telegram = append(telegram, in)
			continue
		}
		in, err := inbound(p, on, rows.Routing)
		if err != nil {
			return config, fmt.Errorf("protocol %s: %w", p.Tag, err)
		}
		service.Inbounds = append(service.Inbounds, in)
	}
	var blocks bool
	var err error
	if service.routingService, blocks, err = routingOf(rows.Routing); err != nil {
		return config, err
	}
	if service.Outbounds, err = outboundsWith(rows, blocks); err != nil {
		return config, err
	}
	if config.Services.Xray, err = json.Marshal(service); err != nil {
		return config, fmt.Errorf("encode services.xray: %w", err)
	}
	config.Services.MTProto, err = mtprotoService(telegram, rows.Node.MTProto)
	return config, err
}

// reached returns the subscriptions that are on the inbound.
func reached(subs []corestore.Subscription, reach corestore.Reach, protocol int64) []corestore.Subscription {
	out := func(sub corestore.Subscription) bool { return !reach.Has(sub.GroupID, protocol) }
	if !slices.ContainsFunc(subs, out) { // as nearly always: nothing is copied
		return subs
	}
	return slices.DeleteFunc(slices.Clone(subs), out)
}

// Sample is an enabled subscription that nobody has, to try a configuration with.
var Sample = corestore.Subscription{
	ID: 1, UserID: 1, Enabled: true, Status: corestore.Active, UUID: "00000000-0000-4000-8000-000000000000", MTProtoSecret: strings.Repeat("0", 32),
	Terms: corestore.Terms{GroupID: corestore.DefaultGroup},
}

// Check returns an error if no configuration or no link could be made of an inbound. It tries
// both with a sample subscription.
func Check(node corestore.Node, p corestore.Protocol) error {
	// An inbound that is left out of this node's configuration has to be right too.
	node.Agent, node.Enabled, node.Maintenance, node.OverBudget, p.Enabled = "", true, false, false, true
	rows := corestore.NodeRows{Node: node, Protocols: []corestore.Protocol{p}, Subscriptions: []corestore.Subscription{Sample}, Reach: corestore.Everywhere(Sample.GroupID)}
	if _, err := Build(rows); err != nil {
		return err
	}
	node.IP = "192.0.2.1" // links are made only for registered nodes, which have an address
	_, err := Links(node, p, Sample)
	if _, none := errors.AsType[*share.Unavailable](err); none {
		return nil // clients are set up by hand
	}
	return err
}

// inbound returns the inbound object for the node: the stored one with the clients, the tag and
// nodeProtocolId.
func inbound(p corestore.Protocol, subs []corestore.Subscription, routing *corestore.Routing) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(p.Config, &object); err != nil {
		return nil, fmt.Errorf("read the inbound: %w", err)
	}
	settings := map[string]json.RawMessage{}
	if raw, ok := object["settings"]; ok {
		if err := json.Unmarshal(raw, &settings); err != nil {
			return nil, fmt.Errorf("read the settings of the inbound: %w", err)
		}
		if settings == nil { // the member is null
			settings = map[string]json.RawMessage{}
		}
	}
	if err := setClients(p, settings, subs); err != nil {
		return nil, err
	}
	if err := withSniffing(object, routing); err != nil {
		return nil, err
	}
	for name, value := range map[string]any{"settings": settings, "tag": p.Tag, "nodeProtocolId": p.ID} {
		if err := set(object, name, value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(object)
}

// set sets a member of a JSON object.
func set(object map[string]json.RawMessage, name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	object[name] = raw
	return nil
}
