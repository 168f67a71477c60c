package parse

import (
	"encoding/json"
	"fmt"
	"strings"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// Xray 26.5 to 26.7 renamed members and still accepts the older names, which Core and panels
// write. This package replaces the newer names by the older ones, so that the rest of the
// program knows one name of each member.
//
//	settings of an inbound: users → clients or accounts  (infra/conf/vless.go:61, socks.go:64)
//	settings of a tunnel:   allowedNetwork → network     (infra/conf/dokodemo.go:23)
//	streamSettings:         method → network             (infra/conf/transport_internet.go:72)

// renameUsers gives the list of users in an inbound's settings the older name.
func renameUsers(protocol string, settings map[string]json.RawMessage) error {
	older := state.Protocols[protocol].AccountsAt()
	switch {
	case protocol == "wireguard": // its clients are the member peers, which has one name
		return nil
	case older == "":
		older = "clients"
	}
	_, err := rename(settings, "users", older)
	return err
}

// renameMembers gives the other members of an inbound or outbound their older names. protocol
// is empty for an outbound.
func renameMembers(protocol string, members map[string]json.RawMessage) error {
	err := inObject(members, "streamSettings", func(stream map[string]json.RawMessage) (bool, error) {
		for name := range stream {
			if strings.EqualFold(name, "method") {
				return rename(stream, name, "network")
			}
		}
		return false, nil
	})
	if err != nil || state.Protocols[protocol].Listens != state.OnChosenNetworks || state.Protocols[protocol].KnowsClients() {
		return err
	}
	return inObject(members, "settings", func(settings map[string]json.RawMessage) (bool, error) {
		return rename(settings, "allowedNetwork", "network")
	})
}

// inObject calls change with the members of the object members[name], and writes it back where
// change returns true. A member that is no object stays as it is.
func inObject(members map[string]json.RawMessage, name string, change func(map[string]json.RawMessage) (bool, error)) error {
	object, err := rawjson.Object(members[name])
	if err != nil {
		return nil //nolint:nilerr // the worker refuses it by name
	}
	changed, err := change(object)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !changed {
		return nil
	}
	members[name], err = json.Marshal(object)
	return err
}

// rename gives a member the older name. It returns an error where object has both names with
// different values: Xray would silently ignore one of them.
func rename(object map[string]json.RawMessage, name, older string) (changed bool, err error) {
	value, has := object[name]
	if !has {
		return false, nil
	}
	isNull := func(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }
	switch other := object[older]; {
	case isNull(other) && !isNull(value):
		object[older] = value
	case !isNull(other) && !isNull(value) && string(other) != string(value):
		return false, fmt.Errorf("%q and %q are two names of one member and have different values: leave one of them out", name, older)
	}
	delete(object, name)
	return true, nil
}
