package worker

import (
	"context"
	"encoding/json"
	"runtime"

	"github.com/xtls/xray-core/common/protocol"
	"github.com/xtls/xray-core/features/inbound"
	"github.com/xtls/xray-core/infra/conf"
	"github.com/xtls/xray-core/proxy"
	"golang.org/x/sync/errgroup"

	"nodeagent/internal/counters"
	"nodeagent/internal/fault"
	"nodeagent/xray/state"
	"nodeagent/xray/worker/guard"
	"nodeagent/xray/worker/inbound/wireguard"
)

// addUsers gives the handler its users, all or none.
func addUsers(handler inbound.Handler, tag string, detour conf.InboundDetourConfig, users []state.Client) error {
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
			return fault.Caused(err, tag, "add clients to inbound %q: %v", tag, err)
		}
		return nil
	}
	ctx := context.Background()
	for i, account := range accounts {
		if err := manager.AddUser(ctx, account); err != nil {
			for _, added := range accounts[:i] {
				_ = manager.RemoveUser(ctx, added.Email)
			}
			return fault.Caused(err, tag, "add client %d to inbound %q: %v", i, tag, err)
		}
	}
	return nil
}

// managerOf is what changes a handler's users: a manager, or a device with peers.
func managerOf(handler inbound.Handler, tag string) (proxy.UserManager, *wireguard.Server, error) {
	inner, ok := guard.Unwrap(handler)
	if !ok {
		return nil, nil, fault.InText(tag, "inbound %q has no proxy", tag)
	}
	if device, is := inner.(*wireguard.Server); is {
		return nil, device, nil
	}
	manager, ok := inner.(proxy.UserManager)
	if !ok {
		return nil, nil, fault.InText(tag, "inbound %q can't change its clients while it runs", tag)
	}
	return manager, nil, nil
}

// addPeers gives a WireGuard device its clients, all or none.
func addPeers(device *wireguard.Server, tag string, users []state.Client) error {
	peers := make([]wireguard.Peer, len(users))
	for i, user := range users {
		var peer conf.WireGuardPeerConfig
		if err := json.Unmarshal(user.Account, &peer); err != nil {
			failure := fault.Caused(err, tag, "read peer %d of inbound %q: %v", i, tag, err)
			failure.ClientEmail = user.Email
			return failure
		}
		built, err := peer.Build()
		if err != nil {
			failure := fault.Caused(err, tag, "build peer %d of inbound %q: %v", i, tag, err)
			failure.ClientEmail = user.Email
			return failure
		}
		peers[i] = wireguard.Peer{Name: user.Email, Config: built}
	}
	if err := device.AddPeers(peers); err != nil {
		return fault.Caused(err, tag, "inbound %q: %v", tag, err)
	}
	return nil
}

// bulkManager changes many users at once at the cost of one.
type bulkManager interface {
	addUsers(users []*protocol.MemoryUser) error // all or none
	removeUsers(emails []string) error
}

// builtTogether are how many users are built at once: more are built on all
// processors.
const builtTogether = 2000

// buildUsers lets Xray's own configuration code read the client objects: it
// knows every protocol's. Plain clients of some protocols need no more than their accounts.
func buildUsers(tag string, detour conf.InboundDetourConfig, users []state.Client) ([]*protocol.MemoryUser, error) {
	shell, err := settingsWithoutUsers(detour)
	if err != nil {
		return nil, fault.Caused(err, tag, "read settings of inbound %q: %v", tag, err)
	}
	plain := plainProtocolOf(detour)
	built := make([]*protocol.MemoryUser, len(users))
	var building errgroup.Group
	building.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(users); from += builtTogether {
		to := min(from+builtTogether, len(users))
		building.Go(func() error {
			if plain.build(users[from:to], built[from:to]) {
				return nil
			}
			err := buildSome(tag, detour, shell, users[from:to], built[from:to])
			if err != nil {
				err = blame(err, tag, detour, shell, users[from:to])
			}
			return err
		})
	}
	if err := building.Wait(); err != nil {
		return nil, err
	}
	return built, nil
}

// blame looks for the first of the users that cannot be built alone, and returns the fault over
// it. The fault names the user, so that only this one is refused. Without such a user it
// returns err, the error over all of them.
func blame(err error, tag string, detour conf.InboundDetourConfig, shell []byte, users []state.Client) error {
	built := make([]*protocol.MemoryUser, 1)
	for i := range users {
		if alone := buildSome(tag, detour, shell, users[i:i+1], built); alone != nil {
			named := *fault.Of(alone)
			named.ClientEmail = users[i].Email
			return &named
		}
	}
	return err
}

// settingsWithoutUsers is an inbound's settings object up to where its users come:
// the array and the brace that end it are to be written.
func settingsWithoutUsers(detour conf.InboundDetourConfig) ([]byte, error) {
	settings := map[string]json.RawMessage{}
	if detour.Settings != nil {
		if err := json.Unmarshal(*detour.Settings, &settings); err != nil {
			return nil, err
		}
	}
	delete(settings, "clients")
	text, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	text = text[:len(text)-1]
	if len(settings) > 0 {
		text = append(text, ',')
	}
	return append(text, `"clients":[`...), nil
}

// buildSome builds users into built, which is as long. A panic in xray-core is an
// error.
func buildSome(tag string, detour conf.InboundDetourConfig, shell []byte, users []state.Client, built []*protocol.MemoryUser) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicked(tag, "build clients of inbound %q: panic in xray-core: %v", tag, r)
		}
	}()
	size := len(shell) + len("]}")
	for i := range users {
		size += len(users[i].Account) + len(",")
	}
	settings := append(make([]byte, 0, size), shell...)
	for i := range users {
		if i > 0 {
			settings = append(settings, ',')
		}
		settings = append(settings, users[i].Account...)
	}
	settings = append(settings, "]}"...)
	detour.Settings = (*json.RawMessage)(&settings)
	detour.StreamSetting = nil // the transport has nothing to do with users
	config, err := detour.Build()
	if err != nil {
		return fault.Caused(err, tag, "build clients of inbound %q: %v", tag, err)
	}
	proxySettings, err := config.ProxySettings.GetInstance()
	if err != nil {
		return fault.Caused(err, tag, "build clients of inbound %q: %v", tag, err)
	}
	some := usersOf(proxySettings)
	if len(some) != len(users) {
		return fault.InText(tag, "build clients of inbound %q: %d of %d came out", tag, len(some), len(users))
	}
	for i, user := range some {
		if built[i], err = user.ToMemoryUser(); err != nil {
			return fault.Caused(err, tag, "build client %d of inbound %q: %v", i, tag, err)
		}
	}
	return nil
}

// usersOf finds the users in a protocol's built settings; protobuf names them
// in two ways.
func usersOf(settings any) []*protocol.User {
	switch s := settings.(type) {
	case interface{ GetUser() []*protocol.User }: // vmess
		return s.GetUser()
	case interface{ GetUsers() []*protocol.User }: // all others
		return s.GetUsers()
	}
	return nil
}

func (e *executor) addUsers(tag string, users []state.Client) error {
	handler, err := e.inbounds.GetHandler(context.Background(), tag)
	if err != nil {
		return fault.InText(tag, "add clients to inbound %q: it does not run", tag)
	}
	var detour conf.InboundDetourConfig
	if err := json.Unmarshal(e.shells[tag].Config, &detour); err != nil {
		return fault.Caused(err, tag, "read inbound %q: %v", tag, err)
	}
	slots, err := e.slotsOf(users)
	if err != nil {
		return err
	}
	known := e.clients.Announce(e.shells[tag], users, slots)
	if state.Protocols[e.shells[tag].Protocol].UserManager { // other inbounds got their users when they were built
		if err := addUsers(handler, tag, detour, users); err != nil {
			known.Undo()
			return err
		}
	}
	e.clients.Put(tag, known.Known, known.KnownSlots)
	return nil
}

func (e *executor) updateUsers(tag string, users []state.Client) error {
	slots, err := e.slotsOf(users)
	if err != nil {
		return err
	}
	e.clients.Put(tag, users, slots)
	return nil
}

func (e *executor) removeUsers(tag string, names []string) error {
	// A drained worker has closed its inbounds, and still has streams of its clients.
	if handler, err := e.inbounds.GetHandler(context.Background(), tag); err == nil && state.Protocols[e.shells[tag].Protocol].UserManager {
		if err := removeAll(handler, tag, names); err != nil {
			return err
		}
	}
	e.clients.Remove(names)
	if !state.Protocols[e.shells[tag].Protocol].UserManager {
		e.inbounds.associations.EndUnknown(tag, e.clients.Knows)
	}
	e.inbounds.hysteria.End(names) // a silent client has no stream, and its connection stays for as long as it is there
	return nil
}

func removeAll(handler inbound.Handler, tag string, names []string) error {
	manager, device, err := managerOf(handler, tag)
	if err != nil {
		return err
	}
	if device != nil {
		return device.RemovePeers(names)
	}
	if bulk, ok := manager.(bulkManager); ok {
		return bulk.removeUsers(names)
	}
	for _, name := range names {
		// A user that does not exist counts as removed.
		_ = manager.RemoveUser(context.Background(), name)
	}
	return nil
}

func (e *executor) slotsOf(users []state.Client) ([]*counters.Slot, error) {
	slots := make([]*counters.Slot, len(users))
	for i, user := range users {
		var err error
		if slots[i], err = e.slots.Slot(user.Slot); err != nil {
			return nil, err
		}
		if user.Grant != nil {
			if _, err := e.slots.Slot(user.Grant.Slot); err != nil {
				return nil, err
			}
		}
	}
	return slots, nil
}
