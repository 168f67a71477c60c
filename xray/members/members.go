package members

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nodeagent/internal/fault"
	"nodeagent/internal/suggest"
	"nodeagent/xray/state"
)

// Operation returns a fault where what the operation puts has a member, or a protocol, that
// Xray does not have.
func Operation(op *state.Operation) error {
	switch {
	case op.Outbound != nil:
		return Outbound(op.Outbound)
	case op.Inbound != nil:
		return Inbound(op.Inbound)
	}
	for name, raw := range map[string]json.RawMessage{"routing": op.Routing, "policy": op.Policy, "dns": op.DNS} {
		if err := shared(name, raw); err != nil {
			return err
		}
	}
	return nil
}

// Base returns a fault where an object of base has a member that Xray does not have.
func Base(base state.Base) error {
	if err := shared("observatory", base.Observatory); err != nil {
		return err
	}
	return shared("burstObservatory", base.BurstObservatory)
}

// Clients returns a fault where the account of a user has a member that Xray does not have.
// The fault concerns the first such user.
func Clients(tag, protocol string, users []state.Client) error {
	t, ok := known().Clients[protocol]
	if !ok {
		return nil
	}
	place := fmt.Sprintf("inbound %q, client", tag)
	for i := range users {
		if err := known().check(place, users[i].Account, t); err != nil {
			return fault.InText(tag, "%v", err)
		}
	}
	return nil
}

// Inbound returns a fault where an inbound has a member, or a protocol, that Xray does not
// have. Clients looks at its clients.
func Inbound(in *state.Inbound) error {
	return known().part("inbound", in.Tag, in.Config)
}

// Outbound is Inbound for an outbound.
func Outbound(out *state.Outbound) error {
	return known().part("outbound", out.Tag, out.Config)
}

// shared checks a part that all inbounds and outbounds share; nil is no part.
func shared(name string, raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	if err := known().check(name, raw, known().Parts[name]); err != nil {
		return fault.InText("", "%v", err)
	}
	return nil
}

// part checks an inbound or outbound object and its settings.
func (t *Table) part(kind, tag string, raw json.RawMessage) error {
	place := fmt.Sprintf("%s %q", kind, tag)
	if err := t.check(place, raw, t.Parts[kind]); err != nil {
		return fault.InText(tag, "%v", err)
	}
	var head struct {
		Protocol string          `json:"protocol"`
		Settings json.RawMessage `json:"settings"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fault.InText(tag, "read %s: %v", place, err)
	}
	settings, ok := t.Settings[kind][strings.ToLower(head.Protocol)] // infra/conf/loader.go, LoadWithID
	if !ok {
		return fault.InText(tag, "%s: protocol %q is unknown to Xray; it knows %s", place, head.Protocol, strings.Join(slices.Sorted(maps.Keys(t.Settings[kind])), ", "))
	}
	if head.Settings == nil {
		return nil
	}
	if err := t.check(place+": settings", head.Settings, settings); err != nil {
		return fault.InText(tag, "%v", err)
	}
	return nil
}

// check returns an error that names the first member of raw that the type has not. A value of
// another kind than the type's passes: Xray refuses it itself.
func (t *Table) check(place string, raw json.RawMessage, index int) error {
	switch as := &t.Types[index]; {
	case as.Members != nil:
		return t.object(place, raw, as)
	case as.List != 0:
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for i, item := range items {
			if err := t.check(fmt.Sprintf("%s[%d]", place, i), item, as.List); err != nil {
				return err
			}
		}
	case as.Map != 0:
		var items map[string]json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for name, item := range items {
			if err := t.check(place+"."+name, item, as.Map); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Table) object(place string, raw json.RawMessage, as *Type) error {
	var object map[string]json.RawMessage
	_ = json.Unmarshal(raw, &object)
	if err := as.removedFrom(place, object); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		// As encoding/json finds members, upper and lower case are one.
		lower := strings.ToLower(name)
		spelled, has := as.spelled[lower]
		if !has {
			near := suggest.DidYouMean(lower, slices.Collect(maps.Keys(as.spelled)), func(near string) string { return as.spelled[near] })
			return fmt.Errorf("%s: Xray has no member %q%s", place, name, near)
		}
		of := as.Members[spelled] // 0 for one of Passed
		if as.Settings != "" && lower == "settings" {
			of = t.Settings[as.Settings][strings.ToLower(kindOf(object))] // 0, every value, for an unknown kind: Xray refuses it itself
		}
		if of == 0 {
			continue
		}
		if err := t.check(place+"."+name, object[name], of); err != nil {
			return err
		}
	}
	return nil
}

// removedFrom returns an error for what Xray has removed, in Xray's words
// (common/errors/feature_errors.go, PrintRemovedFeatureError).
func (as *Type) removedFrom(place string, object map[string]json.RawMessage) error {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if instead, gone := as.Removed[strings.ToLower(name)]; gone {
			return fmt.Errorf("%s: %s", place, RemovedText(name, instead))
		}
	}
	if as.RemovedKinds == nil {
		return nil
	}
	kind := kindOf(object)
	if instead, gone := as.RemovedKinds[strings.ToLower(kind)]; gone {
		return fmt.Errorf("%s: %s", place, RemovedText(kind, instead))
	}
	return nil
}

// RemovedText returns what Xray says of a member, or of a kind, that it has removed. instead
// says what took its place; empty for nothing.
func RemovedText(name, instead string) string {
	if instead != "" {
		instead = " and migrated to " + instead
	}
	return fmt.Sprintf("The feature %q has been removed%s. Please update your config(s) according to release note and documentation.", name, instead)
}

// kindOf is the type that an object names, empty where it names none.
func kindOf(object map[string]json.RawMessage) (name string) {
	for member, raw := range object {
		if strings.EqualFold(member, "type") {
			_ = json.Unmarshal(raw, &name) // what is no text Xray refuses itself
		}
	}
	return name
}
