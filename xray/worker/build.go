package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/xtls/xray-core/app/router"
	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/core"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/features/outbound"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy"
	xwireguard "github.com/xtls/xray-core/proxy/wireguard"

	"nodeagent/xray"
	"nodeagent/xray/worker/wireguard"
)

func invalid(tag string, format string, args ...any) *xray.OperationError {
	return &xray.OperationError{Code: xray.FailureInvalid, Tag: tag, Message: fmt.Sprintf(format, args...)}
}

// buildInbound makes a handler that does not listen yet, with its users. files,
// where there are some, hand it its certificates; nil reads them once.
func (in *instance) buildInbound(want *xray.Inbound, users []xray.Client, files *certificateFiles) (_ inbound.Handler, err error) {
	var detour conf.InboundDetourConfig
	if err := json.Unmarshal(want.Config, &detour); err != nil {
		return nil, invalid(want.Tag, "read inbound %q: %v", want.Tag, err)
	}
	var own adopted
	if files != nil {
		if own, err = files.adopt(want.Tag, &detour); err != nil {
			return nil, invalid(want.Tag, "read the certificate of inbound %q: %v", want.Tag, err)
		}
		defer func() {
			if err != nil {
				own.gone()
			}
		}()
	}
	trustNoForwarding(&detour)
	if err := withSentinel(&detour); err != nil {
		return nil, invalid(want.Tag, "inbound %q: %v", want.Tag, err)
	}
	config, err := detour.Build()
	if err != nil {
		return nil, invalid(want.Tag, "build inbound %q: %v", want.Tag, err)
	}
	object, err := core.CreateObject(in.core, guarded(config))
	if err != nil {
		return nil, invalid(want.Tag, "make inbound %q: %v", want.Tag, err)
	}
	handler, ok := object.(inbound.Handler)
	if !ok {
		return nil, invalid(want.Tag, "make inbound %q: %T is no inbound", want.Tag, object)
	}
	own.built()
	if len(users) > 0 && xray.HasUserManager(want.Protocol) {
		if err := addUsers(handler, want.Tag, detour, users); err != nil {
			return nil, errors.Join(err, closeHandler(handler))
		}
	}
	in.inbounds.owns(handler, own)
	return handler, nil
}

// addUsers gives the handler its users, all or none.
func addUsers(handler inbound.Handler, tag string, detour conf.InboundDetourConfig, users []xray.Client) error {
	manager, device, err := managerOf(handler, tag)
	if err != nil {
		return err
	}
	if device != nil {
		return addPeers(device, tag, users)
	}
	accounts, err := buildUsers(tag, detour, users)
	if err != nil {
		return err
	}
	if bulk, ok := manager.(bulkManager); ok {
		if err := bulk.addUsers(accounts); err != nil {
			return invalid(tag, "add clients to inbound %q: %v", tag, err)
		}
		return nil
	}
	ctx := context.Background()
	for i, account := range accounts {
		if err := manager.AddUser(ctx, account); err != nil {
			for _, added := range accounts[:i] {
				_ = manager.RemoveUser(ctx, added.Email)
			}
			return invalid(tag, "add client %d to inbound %q: %v", i, tag, err)
		}
	}
	return nil
}

// managerOf is what changes a handler's users: a manager, or a device with peers.
func managerOf(handler inbound.Handler, tag string) (proxy.UserManager, *wireguard.Server, error) {
	inner, ok := unguarded(handler)
	if !ok {
		return nil, nil, invalid(tag, "inbound %q has no proxy", tag)
	}
	if device, is := inner.(*wireguard.Server); is {
		return nil, device, nil
	}
	manager, ok := inner.(proxy.UserManager)
	if !ok {
		return nil, nil, invalid(tag, "inbound %q can't change its clients while it runs", tag)
	}
	return manager, nil, nil
}

// addPeers gives a WireGuard device its clients, all or none.
func addPeers(device *wireguard.Server, tag string, users []xray.Client) error {
	peers := make([]wireguard.Peer, len(users))
	for i, user := range users {
		var peer conf.WireGuardPeerConfig
		if err := json.Unmarshal(user.Account, &peer); err != nil {
			return invalid(tag, "read peer %d of inbound %q: %v", i, tag, err)
		}
		built, err := peer.Build()
		if err != nil {
			return invalid(tag, "build peer %d of inbound %q: %v", i, tag, err)
		}
		peers[i] = wireguard.Peer{Name: user.Email, Config: built.(*xwireguard.PeerConfig)}
	}
	if err := device.AddPeers(peers); err != nil {
		return invalid(tag, "inbound %q: %v", tag, err)
	}
	return nil
}

// bulkManager changes many users at once at the cost of one.
type bulkManager interface {
	addUsers(users []*protocol.MemoryUser) error // all or none
	removeUsers(emails []string) error
}

// buildUsers lets Xray's own configuration code read the client objects: it
// knows every protocol's.
func buildUsers(tag string, detour conf.InboundDetourConfig, users []xray.Client) ([]*protocol.MemoryUser, error) {
	settings := map[string]json.RawMessage{}
	if detour.Settings != nil {
		if err := json.Unmarshal(*detour.Settings, &settings); err != nil {
			return nil, invalid(tag, "read settings of inbound %q: %v", tag, err)
		}
	}
	accounts := make([]json.RawMessage, len(users))
	for i, user := range users {
		accounts[i] = user.Account
	}
	var err error
	if settings["clients"], err = json.Marshal(accounts); err != nil {
		return nil, fmt.Errorf("encode clients: %w", err)
	}
	raw, err := json.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	detour.Settings = (*json.RawMessage)(&raw)
	detour.StreamSetting = nil // the transport has nothing to do with users
	config, err := detour.Build()
	if err != nil {
		return nil, invalid(tag, "build clients of inbound %q: %v", tag, err)
	}
	proxySettings, err := config.ProxySettings.GetInstance()
	if err != nil {
		return nil, invalid(tag, "build clients of inbound %q: %v", tag, err)
	}
	built := usersOf(proxySettings)
	if len(built) != len(users) {
		return nil, invalid(tag, "build clients of inbound %q: %d of %d came out", tag, len(built), len(users))
	}
	memory := make([]*protocol.MemoryUser, len(built))
	for i, user := range built {
		if memory[i], err = user.ToMemoryUser(); err != nil {
			return nil, invalid(tag, "build client %d of inbound %q: %v", i, tag, err)
		}
	}
	return memory, nil
}

// usersOf finds the users in a protocol's built settings; protobuf names them
// in three ways.
func usersOf(settings any) []*protocol.User {
	switch s := settings.(type) {
	case interface{ GetClients() []*protocol.User }: // vless
		return s.GetClients()
	case interface{ GetUser() []*protocol.User }: // vmess
		return s.GetUser()
	case interface{ GetUsers() []*protocol.User }: // trojan, shadowsocks, hysteria
		return s.GetUsers()
	}
	return nil
}

func (in *instance) buildOutbound(want *xray.Outbound) (outbound.Handler, error) {
	var detour conf.OutboundDetourConfig
	if err := json.Unmarshal(want.Config, &detour); err != nil {
		return nil, invalid(want.Tag, "read outbound %q: %v", want.Tag, err)
	}
	config, err := detour.Build()
	if err != nil {
		return nil, invalid(want.Tag, "build outbound %q: %v", want.Tag, err)
	}
	object, err := core.CreateObject(in.core, config)
	if err != nil {
		return nil, invalid(want.Tag, "make outbound %q: %v", want.Tag, err)
	}
	handler, ok := object.(outbound.Handler)
	if !ok {
		return nil, invalid(want.Tag, "make outbound %q: %T is no outbound", want.Tag, object)
	}
	return handler, nil
}

// buildRouting returns no rules for a nil object.
func buildRouting(raw json.RawMessage) (*router.Config, error) {
	if raw == nil {
		return &router.Config{}, nil
	}
	var config conf.RouterConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, invalid("", "read routing: %v", err)
	}
	built, err := config.Build()
	if err != nil {
		return nil, invalid("", "build routing: %v", err)
	}
	return built, nil
}
