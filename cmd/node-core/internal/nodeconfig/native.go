package nodeconfig

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"nodeagent/cmd/node-core/internal/corestore"
	"nodeagent/coreapi"
)

// FromNative sets the fields of p from a native inbound object: Xray's, or the contract's MTProto
// inbound. The flags may name a protocol, a listen address and a port too. Address and port of
// the flags replace those of the object; the protocols must be the same.
func FromNative(raw json.RawMessage, f InboundFlags, p *corestore.Protocol) error {
	if err := allowOnly(f, "a native inbound, which says it itself", "sni", "flow", "public-host"); err != nil {
		return err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return fmt.Errorf("read the inbound: %w", err)
	}
	if object == nil {
		return errors.New("read the inbound: it is null, want an object")
	}
	var head struct {
		Tag      string          `json:"tag"`
		Protocol string          `json:"protocol"`
		Listen   string          `json:"listen"`
		Port     json.RawMessage `json:"port"` // a number, or text of one
	}
	err := json.Unmarshal(raw, &head)
	if err != nil {
		return fmt.Errorf("read the inbound: %w", err)
	}
	head.Protocol, p.Protocol = strings.ToLower(head.Protocol), strings.ToLower(p.Protocol) // Xray takes capitals too
	switch {
	case p.Protocol == "":
		p.Protocol = head.Protocol
	case head.Protocol != "" && head.Protocol != p.Protocol:
		return fmt.Errorf("--protocol says %s and the inbound says %s", p.Protocol, head.Protocol)
	}
	if p.Protocol == "" {
		return errors.New("the inbound has no protocol; give one in it or with --protocol")
	}
	for name, value := range map[string]any{"protocol": p.Protocol, "listen": p.Listen, "port": p.Port} {
		if value == "" || value == 0 {
			continue
		}
		if err := set(object, name, value); err != nil {
			return err
		}
	}
	if p.Protocol == mtproto { // the MTProto inbound object has no such member
		delete(object, "protocol")
	}
	if p.Listen == "" {
		p.Listen = head.Listen
	}
	given := strconv.Itoa(p.Port)
	if p.Port == 0 {
		given = cmp.Or(string(head.Port), "0")
		p.Port, _ = strconv.Atoi(strings.Trim(string(head.Port), `"`)) // 0 for a range, which is not supported
	}
	if p.Port < 1 || p.Port > 65535 {
		return fmt.Errorf("port %s is not a number from 1 to 65535: give one in the inbound or with --port", given)
	}
	if p.Tag == "" {
		p.Tag = head.Tag
	}
	if p.Config, err = json.Marshal(object); err != nil {
		return err
	}
	return checkNative(f, p)
}

// checkNative checks the flags and the members of a native inbound that Core itself uses, and
// sets p.Link.
func checkNative(f InboundFlags, p *corestore.Protocol) error {
	if p.Protocol == mtproto {
		if err := allowOnly(f, "mtproto"); err != nil {
			return err
		}
		var in mtprotoInbound
		decoder := json.NewDecoder(bytes.NewReader(p.Config))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&in); err != nil {
			return fmt.Errorf("read the MTProto inbound: %w", err)
		}
		return in.validate()
	}
	var in linkSettings
	if err := json.Unmarshal(p.Config, &in); err != nil {
		return fmt.Errorf("read the inbound: %w", err)
	}
	flow, err := flowOf(f, strings.ToLower(in.StreamSettings.Security))
	p.Link = coreapi.LinkHints{SNI: f.SNI, Flow: flow, PublicHost: f.PublicHost}
	return err
}
