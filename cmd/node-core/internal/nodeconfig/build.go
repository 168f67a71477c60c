package nodeconfig

import (
	"encoding/json"
	"fmt"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreclient/wire"
)

// Build makes a node's configuration: every enabled subscription is a client of
// every inbound.
func Build(node corestore.Node, protocols []corestore.Protocol, outbounds []corestore.Outbound, subs []corestore.Subscription) (wire.NodeConfig, error) {
	config := wire.NodeConfig{Revision: node.Revision, ClientMap: map[string]wire.ClientRef{}}
	var clients []corestore.Subscription
	for _, sub := range subs {
		if sub.Enabled {
			config.ClientMap[sub.UUID] = wire.ClientRef{UserID: sub.UserID, SubscriptionID: &sub.ID}
			clients = append(clients, sub)
		}
	}
	service := struct {
		Inbounds  []json.RawMessage `json:"inbounds"`
		Outbounds []json.RawMessage `json:"outbounds"`
		Routing   struct{}          `json:"routing"`
	}{Inbounds: []json.RawMessage{}, Outbounds: []json.RawMessage{}}
	var telegram []corestore.Protocol
	for _, p := range protocols {
		if p.Protocol == mtproto {
			telegram = append(telegram, p)
			continue
		}
		in, err := inbound(p, clients)
		if err != nil {
			return config, fmt.Errorf("protocol %s: %w", p.Tag, err)
		}
		service.Inbounds = append(service.Inbounds, in)
	}
	for _, o := range outbounds {
		if len(o.Config) > 0 {
			service.Outbounds = append(service.Outbounds, o.Config)
		}
	}
	var err error
	if config.Services.Xray, err = json.Marshal(service); err != nil {
		return config, fmt.Errorf("encode services.xray: %w", err)
	}
	config.Services.MTProto, err = mtprotoService(telegram, clients, node.MTProto)
	return config, err
}

// Check finds what would keep a node from having an inbound: it is built, with its
// links, for a client that does not exist.
func Check(node corestore.Node, p corestore.Protocol) error {
	sample := corestore.Subscription{ID: 1, UserID: 1, Enabled: true, UUID: "00000000-0000-4000-8000-000000000000", MTProtoSecret: strings.Repeat("0", 32)}
	if _, err := Build(node, []corestore.Protocol{p}, nil, []corestore.Subscription{sample}); err != nil {
		return err
	}
	node.IP = "192.0.2.1" // as if it were registered: links are made for those alone
	_, err := Links(node, p, sample)
	return err
}

// inbound adds the clients and our members to an inbound's own object.
func inbound(p corestore.Protocol, subs []corestore.Subscription) (json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(p.Config, &object); err != nil {
		return nil, fmt.Errorf("read its object: %w", err)
	}
	settings := map[string]json.RawMessage{}
	if raw, ok := object["settings"]; ok {
		if err := json.Unmarshal(raw, &settings); err != nil {
			return nil, fmt.Errorf("read its settings: %w", err)
		}
		if settings == nil { // null
			settings = map[string]json.RawMessage{}
		}
	}
	if err := setClients(p, settings, subs); err != nil {
		return nil, err
	}
	for name, value := range map[string]any{"settings": settings, "tag": p.Tag, "nodeProtocolId": p.ID} {
		if err := set(object, name, value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(object)
}

func set(object map[string]json.RawMessage, name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	object[name] = raw
	return nil
}
