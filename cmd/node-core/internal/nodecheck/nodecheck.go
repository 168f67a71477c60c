package nodecheck

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"nodeagent/coreclient/wire"
	"nodeagent/internal/fault"
	"nodeagent/telemt/service"
	"nodeagent/xray/check"
	"nodeagent/xray/members"
	"nodeagent/xray/parse"
	"nodeagent/xray/state"
	"nodeagent/xray/versions"
)

// Findings are what a node would say of a configuration.
type Findings struct {
	Refused  []*fault.Fault // at most one for each part
	Warnings []string
}

// Err joins what is refused; nil for nothing.
func (f Findings) Err() error {
	all := make([]error, len(f.Refused))
	for i, refused := range f.Refused {
		all[i] = refused
	}
	return errors.Join(all...)
}

// Added returns what a node would say of the configuration after, and not of before: a change is
// judged by what it adds. xray is the version of the node's Xray; the zero Version where it is
// not known.
func Added(before, after wire.NodeConfig, xray versions.Version, now time.Time) Findings {
	old, all := Of(before, xray, now), Of(after, xray, now)
	known := map[string]int{} // by what a finding says, how often
	for _, f := range old.Refused {
		known[keyOf(f)]++
	}
	for _, text := range old.Warnings {
		known[withoutIndexes(text)]++
	}
	isNew := func(key string) bool {
		known[key]--
		return known[key] < 0
	}
	var added Findings
	for _, f := range all.Refused {
		if isNew(keyOf(f)) {
			added.Refused = append(added.Refused, f)
		}
	}
	for _, text := range all.Warnings {
		if isNew(withoutIndexes(text)) {
			added.Warnings = append(added.Warnings, text)
		}
	}
	return added
}

// keyOf names a fault: its part, and what it says.
func keyOf(f *fault.Fault) string {
	return strings.Join([]string{string(f.Kind), f.Tag, f.Client, withoutIndexes(f.Message)}, "\x00")
}

var indexes = regexp.MustCompile(`\[[0-9]+\]`)

// withoutIndexes removes the places in lists from a text: they move when another element of the
// list is removed.
func withoutIndexes(text string) string { return indexes.ReplaceAllString(text, "[]") }

// Of returns what a node without a configuration would say of this one. The members of Xray's
// objects are known for the current Xray alone: a node of another version is not judged by them.
func Of(config wire.NodeConfig, xray versions.Version, now time.Time) (f Findings) {
	current := xray == versions.Version{} || xray == versions.Current
	inClientMap := func(key string) bool {
		_, known := config.ClientMap[key]
		return known
	}
	if config.Services.Xray != nil {
		read, err := parse.Parts(config.Services.Xray, inClientMap)
		f.refuse(err)
		for _, refused := range read.Refused {
			f.refuse(refused)
		}
		f.refuse(check.Clients(state.State{}, read.State))
		f.refuse(check.ChangedText(state.State{}, read.State, now))
		if current {
			f.refuse(unknownMembers(read.State))
		}
		if err == nil {
			f.Warnings = check.WarningsOfText(read.State, now)
		}
	}
	if config.Services.MTProto != nil {
		for _, refused := range service.Parts(config.Services.MTProto).Refused {
			f.refuse(refused)
		}
	}
	return f
}

// unknownMembers returns a fault for each part that has a member, or a protocol, that Xray does
// not have.
func unknownMembers(s state.State) error {
	all := []error{
		fault.In(fault.Routing, members.Operation(&state.Operation{Routing: s.Routing})),
		fault.In(fault.DNS, members.Operation(&state.Operation{DNS: s.DNS})),
		fault.In(fault.Policy, members.Operation(&state.Operation{Policy: s.Policy})),
		fault.In(fault.Routing, members.Base(s.Base)),
	}
	for _, tag := range s.Tags() {
		in := s.Inbounds[tag]
		all = append(all, fault.In(fault.Inbound, members.Inbound(&in)), fault.In(fault.Inbound, members.Clients(tag, in.Protocol, in.Clients.Values())))
	}
	for i := range s.Outbounds {
		all = append(all, fault.In(fault.Outbound, members.Outbound(&s.Outbounds[i])))
	}
	return errors.Join(all...)
}

// refuse adds the faults in err that are in the text, each part once.
func (f *Findings) refuse(err error) {
	for _, found := range fault.All(err) {
		same := func(other *fault.Fault) bool {
			return other.Kind == found.Kind && other.Tag == found.Tag && other.Client == found.Client && found.Tag != ""
		}
		if !found.Retry && !slices.ContainsFunc(f.Refused, same) {
			f.Refused = append(f.Refused, found)
		}
	}
}
