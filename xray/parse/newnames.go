package parse

import (
	"encoding/json"
	"fmt"
	"strings"

	"nodeagent/xray/rawjson"
	"nodeagent/xray/state"
)

// Xray 26.5 to 26.7 renamed members and still takes the older names, which Core and
// panels write. A configuration is read into the older names, so that everything behind
// Service knows one name of each.
//
//	settings of an inbound: users → clients or accounts  (infra/conf/vless.go:61, socks.go:64)
//	settings of a tunnel:   allowedNetwork → network     (infra/conf/dokodemo.go:23)
//	streamSettings:         method → network             (infra/conf/transport_internet.go:72)

// renameUsers gives the list of users in an inbound's settings its older name.
func renameUsers(protocol string, settings map[string]json.RawMessage) error {
	older := state.Protocols[protocol].AccountsAt()
	switch {
	case protocol == "wireguard": // whose users are its peers
		return nil
	case older == "":
		older = "clients"
	}
	_, err := rename(settings, "users", older)
	return err
}

// renameMembers gives an inbound's or outbound's other members their older names.
// protocol is empty for an outbound.
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

// inObject changes a member that is an object.
func inObject(members map[string]json.RawMessage, name string, change func(map[string]json.RawMessage) (bool, error)) error {
	object, err := rawjson.Object(members[name])
	if err != nil {
		return nil //nolint:nilerr // the worker says what is wrong with it
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

// rename gives a member its older name. Both names with another value each are an error:
// Xray would take one of them without a word.
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
		return false, fmt.Errorf("%q and %q are two names of one member, and have another value each: leave one of them out", name, older)
	}
	delete(object, name)
	return true, nil
}
