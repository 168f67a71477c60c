package members

import (
	"bytes"
	"encoding/json"
	"errors"
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
	for i := range users {
		if err := known().check(clientPlace(tag, &users[i]), users[i].Account, t); err != nil {
			return fault.InText(tag, "%v", err)
		}
	}
	return nil
}

// clientPlace names a client by its place in the inbound's list, and by the name that Core gave
// it, unless that is its secret too.
func clientPlace(tag string, client *state.Client) string {
	place := fmt.Sprintf("inbound %q, clients[%d]", tag, client.Reading.Index)
	if quoted, err := json.Marshal(client.Name); err == nil && client.Name != "" && !bytes.Contains(client.Account, quoted) {
		place += fmt.Sprintf(" (%q)", client.Name)
	}
	return place
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
	var found finding
	t.find(&found, place, raw, t.Parts[kind])
	var head struct {
		Protocol string          `json:"protocol"`
		Settings json.RawMessage `json:"settings"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return fault.InText(tag, "read %s: %v", place, err)
	}
	settings, ok := t.Settings[kind][strings.ToLower(head.Protocol)] // infra/conf/loader.go, LoadWithID
	if !ok {
		found.add("%s: protocol %q is unknown to Xray; it knows %s", place, head.Protocol, strings.Join(slices.Sorted(maps.Keys(t.Settings[kind])), ", "))
	} else if head.Settings != nil {
		t.find(&found, place+": settings", head.Settings, settings)
	}
	if err := found.err(); err != nil {
		return fault.InText(tag, "%v", err)
	}
	return nil
}

// maxFound bounds how many members one message names.
const maxFound = 20

// finding collects what is wrong, for one message, and the names of what passes and is not used.
type finding struct {
	texts  []string
	more   int
	passed []string
}

func (f *finding) add(format string, args ...any) {
	if len(f.texts) == maxFound {
		f.more++
		return
	}
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

// err returns one error for all that was found; nil for nothing.
func (f *finding) err() error {
	switch {
	case len(f.texts) == 0:
		return nil
	case f.more > 0:
		return fmt.Errorf("%s; and %d more", strings.Join(f.texts, "; "), f.more)
	}
	return errors.New(strings.Join(f.texts, "; "))
}

// check returns an error that names the members of raw that the type has not. A value of
// another kind than the type's passes: Xray refuses it itself.
func (t *Table) check(place string, raw json.RawMessage, index int) error {
	var found finding
	t.find(&found, place, raw, index)
	return found.err()
}

func (t *Table) find(found *finding, place string, raw json.RawMessage, index int) {
	switch as := &t.Types[index]; {
	case as.Members != nil:
		t.object(found, place, raw, as)
	case as.List != 0:
		var items []json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for i, item := range items {
			t.find(found, fmt.Sprintf("%s[%d]", place, i), item, as.List)
		}
	case as.Map != 0:
		var items map[string]json.RawMessage
		_ = json.Unmarshal(raw, &items)
		for _, name := range slices.Sorted(maps.Keys(items)) {
			t.find(found, place+"."+name, items[name], as.Map)
		}
	}
}

func (t *Table) object(found *finding, place string, raw json.RawMessage, as *Type) {
	var object map[string]json.RawMessage
	_ = json.Unmarshal(raw, &object)
	as.removedFrom(found, place, object)
	for _, name := range slices.Sorted(maps.Keys(object)) {
		// As encoding/json finds members, upper and lower case are one.
		lower := strings.ToLower(name)
		if _, gone := as.Removed[lower]; gone {
			continue // Xray's own words are there
		}
		spelled, has := as.spelled[lower]
		if !has {
			near := suggest.DidYouMean(lower, slices.Collect(maps.Keys(as.spelled)), func(near string) string { return as.spelled[near] })
			found.add("%s: Xray has no member %q%s", place, name, near)
			continue
		}
		of, isMember := as.Members[spelled]
		if !isMember {
			found.passed = append(found.passed, strings.TrimLeft(place+"."+spelled, ".: "))
		}
		if as.Settings != "" && lower == "settings" {
			of = t.Settings[as.Settings][strings.ToLower(kindOf(object))] // 0, every value, for an unknown kind: Xray refuses it itself
		}
		if of != 0 {
			t.find(found, place+"."+name, object[name], of)
		}
	}
}

// ours are members that Xray does not have and node-agent reads.
var ours = []string{"trustedProxies"}

// Unused returns the members of an inbound or outbound that panels write and Xray ignores, by
// their places in the object, such as "streamSettings.externalProxy". kind is "inbound" or
// "outbound".
func Unused(kind string, raw json.RawMessage) []string {
	t := known()
	var found finding
	t.find(&found, "", raw, t.Parts[kind])
	var head struct {
		Protocol string          `json:"protocol"`
		Settings json.RawMessage `json:"settings"`
	}
	_ = json.Unmarshal(raw, &head) // it was read before
	if settings, ok := t.Settings[kind][strings.ToLower(head.Protocol)]; ok && head.Settings != nil {
		t.find(&found, "settings", head.Settings, settings)
	}
	return slices.DeleteFunc(found.passed, func(place string) bool { return slices.Contains(ours, place) })
}

// removedFrom finds what Xray has removed, and says so in Xray's words
// (common/errors/feature_errors.go, PrintRemovedFeatureError).
func (as *Type) removedFrom(found *finding, place string, object map[string]json.RawMessage) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if instead, gone := as.Removed[strings.ToLower(name)]; gone {
			found.add("%s: %s", place, RemovedText(name, instead))
		}
	}
	if as.RemovedKinds == nil {
		return
	}
	kind := kindOf(object)
	if instead, gone := as.RemovedKinds[strings.ToLower(kind)]; gone {
		found.add("%s: %s", place, RemovedText(kind, instead))
	}
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
